import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import ray
import torch

from avdata.errors import UsageError
from avdata.jobs.device import on_gpu
from avdata.jobs.engine import Engine, joined_ray, stream


class Square:
    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["x"] == 13:
            raise UsageError("thirteen")
        if item["x"] == 28:
            raise OSError(28, "No space left on device", "/a/part")
        return {"y": item["x"] ** 2}


class Cores:
    """What each worker takes of them, as Ray counts."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        taken = cast(Any, ray).get_runtime_context().get_assigned_resources()
        return {**item, "cores": taken.get("CPU", 0)}


def squares(engine: Engine, *numbers: int) -> set[int]:
    return {answer["y"] for answer in stream(engine, Square, [{"x": x} for x in numbers])}


@pytest.mark.parametrize("engine", [Engine(inline=True), Engine(workers=2)])
def test_every_item_is_answered_and_our_errors_keep_their_kind(engine: Engine) -> None:
    with nullcontext() if engine.inline else joined_ray(engine):
        assert squares(engine, 1, 2, 3) == {1, 4, 9}
        with pytest.raises(UsageError, match=r"^thirteen$"):
            squares(engine, 13)
        with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: '/a/part'$"):
            squares(engine, 28)


def test_as_many_workers_as_cores_that_this_process_may_use() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert Engine().num_workers() == 1
    finally:
        os.sched_setaffinity(0, cores)


class Device:
    """Answers once so many workers are there, each of which leaves a file."""

    def __init__(self, folder: Path, together: int) -> None:
        self.folder, self.together = folder, together
        (folder / str(os.getpid())).touch()

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + 60
        while len(list(self.folder.iterdir())) < self.together and time.monotonic() < until:
            time.sleep(0.05)
        return {**item, "device": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "pid": os.getpid()}


@contextmanager
def ray_with(num_gpus: int) -> Iterator[None]:
    """Ray deals GPUs out by number, whether they are there or not."""
    quiet: dict[str, Any] = {"include_dashboard": False, "logging_level": logging.ERROR}
    ray.init("local", num_cpus=4, num_gpus=num_gpus, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def test_without_gpus_it_is_the_cluster_that_says_so() -> None:
    with ray_with(num_gpus=0):
        assert [one["y"] for one in stream(Engine(), Square, [{"x": 3}], on_gpu=None)] == [9]
        with pytest.raises(UsageError, match="Ray has no GPU to give"):
            list(stream(Engine(), Square, [{"x": 1}], on_gpu=True))


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    with ray_with(num_gpus=2):
        yield


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("on_gpu", [True, None])
def test_a_worker_on_gpus_has_one_of_its_own(tmp_path: Path, on_gpu: bool | None) -> None:
    items = [{"x": x} for x in range(8)]
    work = partial(Device, tmp_path, 2)
    answers = list(stream(Engine(workers=9), work, items, on_gpu=on_gpu))
    assert {answer["x"] for answer in answers} == set(range(8))
    devices = {answer["pid"]: answer["device"] for answer in answers}
    assert sorted(devices.values()) == ["0", "1"]


class Absent:
    def __init__(self) -> None:
        raise UsageError("device = cuda: not in this worker")

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item


@pytest.mark.usefixtures("two_gpus")
def test_what_a_worker_lacks_is_said_as_it_is() -> None:
    """Its own machine is not that of the command."""
    with pytest.raises(UsageError, match=r"^device = cuda: not in this"):
        list(stream(Engine(), Absent, [{"x": 1}], on_gpu=True))


@pytest.mark.usefixtures("two_gpus")
def test_workers_take_a_core_unless_others_decode_for_them() -> None:
    for gpu, leaves, wanted in ((False, False, 1), (False, True, 0), (True, False, 0)):
        answers = stream(Engine(), Cores, [{"x": 1}], on_gpu=gpu, leaves_cores=leaves)
        assert [one["cores"] for one in answers] == [wanted]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_head_without_gpus_leaves_them_to_the_cluster() -> None:
    far = Engine(address="ray://elsewhere:10001")
    wanted = {"cuda": True, "cuda:1": True, "auto": None, "cpu": False}
    assert {name: on_gpu(name, far) for name in wanted} == wanted
    with pytest.raises(UsageError, match="torch sees no CUDA device"):
        on_gpu("cuda", Engine())
    assert on_gpu("auto", Engine()) is False
    with pytest.raises(UsageError, match="give cpu, cuda or auto"):
        on_gpu("tpu", far)
