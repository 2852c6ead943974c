"""`avdata encode` on a cluster of several nodes: clips are decoded on all of them."""

import contextlib
import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError, UsageError
from avdata.jobs.decoding import ClusterDecoding, Reading, WorkerDecoding, on_cluster
from avdata.jobs.encode import EncodeConfig, encode
from avdata.jobs.engine import Engine
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.shards.plan import PlanSettings
from tests.jobs.test_chaos import descendants
from tests.jobs.test_encode_workers import MOST_S, several_films, started

NODES = 3
CONFIG = EncodeConfig(
    height=64, width=96, device="auto", decode_on="cluster", plan=PlanSettings(samples_per_shard=3)
)
SHAPE = ClipShape(num_frames=17, height=64, width=96)
Node = Any


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of several films, of which some make a shard."""
    return several_films(tmp_path_factory)


@pytest.fixture(scope="module")
def local(selected: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is made without Ray."""
    out = tmp_path_factory.mktemp("local") / "shards"
    encode(selected, out, dataclasses.replace(CONFIG, decode_on="worker"), Engine(inline=True))
    return made(out)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A core on each node; the first has a GPU, as far as Ray knows."""
    head = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def made(root: Path) -> dict[str, bytes]:
    """Every tar and every index."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.glob("*/*")}
    assert found
    return {name: data for name, data in found.items() if ".tmp-" not in name}


def decoding_on(nodes: dict[int, str]) -> set[str]:
    """Those of the nodes, by their raylet's process, below which a child decodes or waits to."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if decodes(int(folder.name)):
                found |= {nodes[pid] for pid in ancestors(int(folder.name)) if pid in nodes}
    return found


def decodes(pid: int) -> bool:
    try:
        return b"avdata.pipeline.media.child" in Path("/proc", str(pid), "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def by_raylet(cluster: Cluster) -> dict[int, str]:
    """Ids of nodes by the process that starts all others there."""
    return {node.all_processes["raylet"][0].process.pid: node.node_id for node in nodes(cluster)}


def nodes(cluster: Cluster) -> list[Node]:
    return sorted(
        cast(Any, cluster).list_all_nodes(), key=lambda node: node is not cluster.head_node
    )


class Watched(threading.Thread):
    """Where clips are decoded; may take a node away once a shard is there and it has decoded."""

    def __init__(self, cluster: Cluster, out: Path, victim: Node = None) -> None:
        super().__init__(daemon=True)
        self._cluster, self._out, self._victim = cluster, out, victim
        self.nodes: set[str] = set()
        self.shards_at_loss: int | None = None
        self._over = threading.Event()

    def run(self) -> None:
        known = by_raylet(self._cluster)
        while not self._over.wait(0.05):
            self.nodes |= decoding_on(known)
            there = len(list(self._out.glob("*/*.index.json")))
            if self._victim is not None and there and self._victim.node_id in self.nodes:
                self._cluster.remove_node(self._victim, allow_graceful=False)
                self._victim, self.shards_at_loss = None, there

    def __enter__(self) -> "Watched":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


@pytest.mark.usefixtures("cluster")
def test_clips_are_read_elsewhere_as_they_are_here(selected: Path) -> None:
    """And what is wrong with one is told from what is wrong with us."""
    reading = Reading(CONFIG.limits, CONFIG.fit, 1.0)
    here, there = WorkerDecoding(reading), ClusterDecoding(reading)
    clip = Manifest(selected).clips("keep")[0]
    one, other = here(clip, SHAPE), there(clip, SHAPE)
    assert isinstance(one, ClipMedia)
    assert isinstance(other, ClipMedia)
    for ours, theirs in ((one.frames, other.frames), (one.samples, other.samples)):
        np.testing.assert_array_equal(ours, theirs)
        assert theirs.flags.owndata  # Not a view that keeps it in Ray's object store.
    late = there(dataclasses.replace(clip, start_s=99.0), SHAPE)
    assert isinstance(late, MediaError)
    assert late.reason == "clip_beyond_end"
    gone = dataclasses.replace(clip.source, uris=[f"{clip.source.uri}.gone"])
    with pytest.raises(RunError, match=r"^decoding on \S+ .* gone since ingest"):
        there(dataclasses.replace(clip, source=gone), SHAPE)
    with pytest.raises(RunError, match="a bug in decoding, not a bad clip"):
        there(clip, cast(Any, "no shape"))


def test_workers_on_all_cores_leave_them_to_what_decodes(
    cluster: Cluster, selected: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, device="cpu", decode_ahead=2)
    encode(selected, tmp_path, config, Engine(address=cluster.address, workers=NODES))
    assert made(tmp_path) == local


def test_a_node_lost_while_it_decodes_changes_nothing(
    cluster: Cluster, selected: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    """The only worker is on the head, which has the GPU."""
    others = nodes(cluster)[1:]
    with Watched(cluster, tmp_path, victim=others[0]) as watched:
        encode(selected, tmp_path, CONFIG, Engine(address=cluster.address))
    assert {node.node_id for node in others} <= watched.nodes
    assert watched.shards_at_loss is not None
    assert 0 < watched.shards_at_loss < sum(name.endswith(".tar") for name in local)
    assert made(tmp_path) == local


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_child(
    selected: Path, tmp_path: Path, how: signal.Signals
) -> None:
    run = started(selected, tmp_path / "out", 1, "--set", "decode_on=cluster")
    until = time.monotonic() + MOST_S
    while not (found := [pid for pid in descendants(run.pid) if decodes(pid)]):
        assert run.poll() is None
        assert time.monotonic() < until
    run.send_signal(how)
    run.wait(MOST_S)
    while left := [pid for pid in found if decodes(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def test_where_clips_are_decoded_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, selected: Path, tmp_path: Path
) -> None:
    for machines, device, elsewhere in ((3, "cuda", True), (1, "cuda", False), (3, "cpu", False)):
        monkeypatch.setattr("avdata.jobs.decoding.num_machines", lambda one=machines: one)
        assert on_cluster("auto", device) is elsewhere
        assert on_cluster("cluster", device) is True
        assert on_cluster("worker", device) is False
    with pytest.raises(UsageError, match="decode_on = cluster: not --inline"):
        encode(selected, tmp_path, CONFIG, Engine(inline=True))
    monkeypatch.setattr("avdata.jobs.decoding.num_machines", lambda: 0)
    with pytest.raises(UsageError, match="no core to decode on"):
        ClusterDecoding(Reading(CONFIG.limits, CONFIG.fit, 1.0))
