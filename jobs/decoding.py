"""Who decodes the clips of a worker of `avdata encode`: children of its own, or the whole cluster.

Either way a clip is decoded in a child process under the same limits, a thread of the worker waits
for it, and what is decoded lies in the worker's memory, not in Ray's, until it is encoded.
"""

import functools
import os
import socket
from dataclasses import dataclass
from typing import Any, Literal, cast

from avdata.encoders.spec import ClipShape
from avdata.errors import AvdataError, MediaError, UsageError
from avdata.jobs.engine import what_ray_loses
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.geometry import Fit
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.decoders import DecodeLimits, Decoders
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead

DecodeOn = Literal["auto", "worker", "cluster"]
Answer = ClipMedia | MediaError
"""What is wrong with a clip is an answer; what is wrong with all of them is raised."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How clips are read, wherever it is done."""

    limits: DecodeLimits
    fit: Fit
    max_copies_gib: float


def on_cluster(where: DecodeOn, device: str) -> bool:
    """Whether a worker that encodes on `device` (cpu, cuda) has its clips decoded elsewhere."""
    if where == "auto":
        return device != "cpu" and num_machines() > 1
    return where == "cluster"


def num_machines() -> int:
    """Of the cluster, if this process is in one: those with cores to give."""
    import ray

    nodes = cast(Any, ray).nodes() if ray.is_initialized() else []
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in nodes)


class WorkerDecoding:
    """Children of this process, as many as threads ask at once."""

    def __init__(self, reading: Reading, sharing: int = 1) -> None:
        remove_copies_of_the_dead()
        self._fit = reading.fit
        self._copies = LocalCopies(reading.max_copies_gib, sharing)
        self._decoders = Decoders(reading.limits)

    def __call__(self, clip: Clip, shape: ClipShape) -> Answer:
        """The clip, or why it cannot be decoded; RunError when no clip can be."""
        try:
            return clip_media(clip, shape, self._copies, self._fit, self._decoders.read)
        except MediaError as error:
            return error


class ClusterDecoding:
    """Tasks of Ray, a core each, spread over all machines; those of a machine that dies are done
    again on another.
    """

    def __init__(self, reading: Reading) -> None:
        import ray

        if num_machines() == 0:  # Ray would wait for ever for a core that is not there.
            raise UsageError("Ray has no core to decode on; set decode_on=worker")
        self._reading = reading
        self._task = ray.remote(_decoded).options(num_cpus=1, scheduling_strategy="SPREAD")

    def __call__(self, clip: Clip, shape: ClipShape) -> Answer:
        """As `WorkerDecoding`; RunError, too, when Ray loses it again and again."""
        import ray

        with what_ray_loses():
            answer = ray.get(self._task.remote(self._reading, clip, shape))
        if isinstance(answer, ClipMedia):  # A view of Ray's memory, which is to be free again.
            return ClipMedia(answer.frames.copy(), answer.samples.copy())
        if isinstance(answer, MediaError):
            return answer
        raise answer


def _decoded(reading: Reading, clip: Clip, shape: ClipShape) -> ClipMedia | AvdataError:
    try:
        return _decoding(reading)(clip, shape)
    except AvdataError as error:  # Ray would wrap it in its own.
        where = f"decoding on {socket.gethostname()} (decode_on=worker decodes where it encodes)"
        return type(error)(f"{where}: {error}")


@functools.lru_cache(maxsize=1)
def _decoding(reading: Reading) -> WorkerDecoding:
    """Children and copies outlive a task: the next one of this process finds them."""
    return WorkerDecoding(reading, sharing=os.cpu_count() or 1)
