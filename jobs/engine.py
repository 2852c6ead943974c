"""Where jobs run: in this process, on a Ray started here, or on a cluster.

Ray does the scheduling; this file only starts it quietly and hides which of the three it is.
"""

import itertools
import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from avdata.errors import AvdataError, RunError, UsageError

if TYPE_CHECKING:
    import ray.data

WINDOW, WINDOW_PER_WORKER = 1_000, 100
"""Items that Ray is given at once: it keeps some 15 KiB of each in this process to the end."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How a job runs."""

    inline: bool = False
    """In this process, one item after another: for debugging and tiny corpora."""
    address: str | None = None
    """A Ray cluster to join; None starts a Ray of our own on this machine."""
    workers: int | None = None
    """Items at once; None is one a core that this process may use, or of the cluster one a core
    or a GPU.
    """

    def num_workers(self) -> int:
        """Items at once."""
        return self.workers or len(os.sched_getaffinity(0))


class Worker(Protocol):
    """Made once per process, called once per item; its answer must be small and plain."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Does one item; commits its own output."""


def stream(
    engine: Engine,
    make: Callable[[], Worker],
    items: Iterable[dict[str, Any]],
    *,
    on_gpu: bool | None = False,
    leaves_cores: bool = False,
) -> Generator[dict[str, Any], None, None]:
    """The answers, in whatever order they come; Ray Data keeps the workers fed, each with a GPU of
    its own if they are to have one; None is where Ray has any. Those with a GPU, and those that
    leave cores to Ray's tasks that they wait for, take none: tasks would wait for ever for one.

    An exception of a worker ends the stream: workers turn data errors into answers themselves.
    """
    if engine.inline:
        worker = make()
        yield from (worker(item) for item in items)
        return
    with joined_ray(engine):
        import ray

        class Actor:
            def __init__(self) -> None:
                self._worker: Worker | None = None

            def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
                try:
                    self._worker = self._worker or make()  # Its errors are answers, too.
                    return {"answer": self._worker(row), "error": None}
                except (AvdataError, OSError) as error:  # Ray would wrap it in its own.
                    return {"answer": None, "error": pickle.dumps(error)}

        on_gpu = num_gpus() > 0 if on_gpu is None else on_gpu
        workers = _on_gpus(engine) if on_gpu else _on_cores(engine)
        takes: Any = {"num_cpus": int(not (on_gpu or leaves_cores)), "num_gpus": int(on_gpu)}
        items, size = iter(items), max(WINDOW, WINDOW_PER_WORKER * workers)
        while window := list(itertools.islice(items, size)):
            # One block an item: an answer is there as soon as it can be, no item waits for others.
            data = ray.data.from_items(window, override_num_blocks=len(window))
            compute = ray.data.ActorPoolStrategy(size=min(workers, len(window)))
            answers = data.map(cast(Any, Actor), compute=compute, **takes)
            for row in _rows(answers):
                if row["error"] is not None:
                    raise pickle.loads(row["error"])
                yield row["answer"]


def num_gpus() -> int:
    """Of the cluster that this process has joined."""
    import ray

    return int(cast(Any, ray).cluster_resources().get("GPU", 0))


def _on_cores(engine: Engine) -> int:
    """Items at once; a cluster has other cores than this machine."""
    if engine.address is None or engine.workers is not None:
        return engine.num_workers()
    import ray

    return max(1, int(cast(Any, ray).cluster_resources().get("CPU", 0)))


def _on_gpus(engine: Engine) -> int:
    """Items at once; Ray would wait for ever for a GPU that is not there."""
    count = num_gpus()
    if count == 0:
        raise UsageError("Ray has no GPU to give; set device=cpu, or join a cluster by --address")
    return min(engine.workers or count, count)


def _rows(answers: "ray.data.Dataset") -> Iterator[dict[str, Any]]:
    """A worker that dies is replaced by Ray; what Ray cannot replace ends the stream."""
    with what_ray_loses():
        yield from answers.iter_rows()


@contextmanager
def what_ray_loses() -> Iterator[None]:
    """Processes and results that Ray lost and could not replace are a RunError."""
    from ray import exceptions as ray

    lost = (ray.NodeDiedError, ray.ObjectLostError, ray.RayActorError)
    try:
        yield
    except (*lost, ray.OutOfMemoryError, ray.WorkerCrashedError) as error:
        said = str(error).splitlines()[0]
        raise RunError(f"Ray lost a process ({said}); run it again to go on from here") from error


@contextmanager
def joined_ray(engine: Engine) -> Iterator[None]:
    """A Ray of our own or the cluster at `address`; UsageError where none answers there."""
    # Ray's own notices are for its developers; failures reach us as exceptions.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(
                # "local": never a cluster that was left running here or is named in RAY_ADDRESS.
                address=engine.address or "local",
                include_dashboard=False if engine.address is None else None,
                num_cpus=None if engine.address else engine.num_workers(),
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except ConnectionError as error:
            raise UsageError(f"--address {engine.address}: no Ray cluster answers there") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
