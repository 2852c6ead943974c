"""Real processes over uneven buckets: nothing hangs, and nothing is left behind by a crash."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from avdata.pipeline.shards.dataset import Dataset
from tests.trainer.data.loaders import write
from tests.trainer.data.rank import EPOCHS

WORLD, ROOT = 4, Path(__file__).parents[3]
Ranks = list["subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("shards"))


def start(dataset: Dataset, store: Path, world: int) -> Ranks:
    command = [sys.executable, "-m", "tests.trainer.data.rank", str(dataset.root)]
    return [
        subprocess.Popen(
            [*command, str(rank), str(world), str(store)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


@pytest.mark.timeout(900)  # Python starts six times.
def test_processes_take_equal_steps_and_each_sample_once_an_epoch_also_after_a_crash(
    dataset: Dataset, tmp_path: Path
) -> None:
    crashed = start(dataset, tmp_path / "first", 2)
    try:
        for one in crashed:
            assert one.stdout is not None
            assert one.stdout.readline() == "reads\n"  # It has a batch and reads ahead.
    finally:
        for one in crashed:
            one.kill()
            one.communicate()
    ranks = start(dataset, tmp_path / "second", WORLD)
    found = [json.loads(one.communicate(timeout=240)[0].splitlines()[-1]) for one in ranks]
    assert [one.returncode for one in ranks] == [0] * WORLD
    assert all(one == found[0] for one in found)
    shapes, counted = found[0]
    assert len({tuple(shape) for shape in shapes}) == 2
    entries = dataset.samples("train")
    keys = Counter(key for step in counted for key in step)
    assert keys == Counter({entry.key: EPOCHS for entry in entries})
