import logging
import os
from typing import Any

import pytest
import ray

from avdata.errors import UsageError
from avdata.jobs.engine import Engine, stream


class Square:
    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["x"] == 13:
            raise UsageError("thirteen")
        return {"y": item["x"] ** 2}


def squares(engine: Engine, *numbers: int) -> set[int]:
    return {answer["y"] for answer in stream(engine, Square, [{"x": x} for x in numbers])}


@pytest.mark.parametrize("engine", [Engine(inline=True), Engine(workers=2)])
def test_every_item_is_answered_and_our_errors_keep_their_kind(engine: Engine) -> None:
    assert squares(engine, 1, 2, 3) == {1, 4, 9}
    with pytest.raises(UsageError, match=r"^thirteen$"):
        squares(engine, 13)


class Device:
    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "device": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


@pytest.mark.parametrize(("workers", "wanted"), [(9, 2)])
def test_a_worker_on_gpus_has_one_of_its_own(workers: int | None, wanted: int) -> None:
    """Ray deals GPUs out by number, whether they are there or not."""
    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, logging_level=logging.ERROR)
    try:
        items = [{"x": x} for x in range(8)]
        answers = list(stream(Engine(workers=workers), Device, items, on_gpu=True))
    finally:
        ray.shutdown()
    assert {answer["x"] for answer in answers} == set(range(8))
    devices = {answer["device"] for answer in answers}
    assert devices <= {"0", "1"}
    assert len(devices) <= wanted


def test_without_a_gpu_there_is_no_waiting_for_one() -> None:
    ray.init("local", num_cpus=1, num_gpus=0, include_dashboard=False, logging_level=logging.ERROR)
    try:
        with pytest.raises(UsageError, match="Ray has no GPU to give"):
            list(stream(Engine(), Device, [{"x": 1}], on_gpu=True))
    finally:
        ray.shutdown()
