"""What a large corpus costs in memory: not its table."""

from pathlib import Path

import numpy as np
import pytest

from avdata.pipeline.shards.column import write_column
from avdata.pipeline.shards.table import MEMBERS, ROW, Table, TableShard, read_table, seal_table
from avdata.trainer.data.config import MixConfig
from avdata.trainer.data.located import locate
from avdata.trainer.data.plan import Plan
from avdata.trainer.data.selection import buckets_of

SHARDS, SHARD = 400, 1000
STATUS = Path("/proc/self/status")
MIXES = [
    MixConfig(),
    MixConfig(only_subsets=("a",), subset_weights={"b": 2}, source_weights={"1": 0.5}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of samples in random subsets."""
    root, count = tmp_path_factory.mktemp("table"), SHARDS * SHARD
    rng = np.random.default_rng(0)
    subsets = rng.integers(0, 4, count).astype(np.uint64)
    for name, column in (("subsets", subsets), ("sources", np.arange(count, dtype=np.int32))):
        write_column(root / f"{name}.npy", column.dtype, count)[:] = column
    np.save(root / "source_names.npy", np.arange(count).astype("S32"))
    rows = write_column(root / "rows.npy", ROW, count)
    rows["key"] = np.arange(count).astype("S8")
    rows["places"]["shape"] = np.arange(len(MEMBERS))
    first = list(range(0, count + 1, SHARD))
    seal_table(root, shapes=[[1]] * len(MEMBERS), subset_names=["a", "b"], first=first)
    return root


def opened(folder: Path) -> Table:
    return read_table([TableShard(str(k), "train", "bucket") for k in range(SHARDS)], folder)


def resident() -> int:
    lines = STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not STATUS.exists(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("mix", MIXES)
def test_looking_up_samples_costs_no_memory_that_goes_with_their_number(
    folder: Path, mix: MixConfig
) -> None:
    table, warm = opened(folder), opened(folder)

    def looked_up(table: Table, steps: range) -> set[str]:
        plan = Plan(buckets_of(table, "train", mix, 256, 4), seed=0)
        rows = map(plan.batch, steps)
        return {one.key for some in rows for one in locate(table, some.rows, ("video", "audio"))}

    looked_up(warm, range(4))
    before = resident()
    assert len(looked_up(table, range(300))) > SHARDS * SHARD // 20
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert resident() - before < size / 8  # The table is open still.
