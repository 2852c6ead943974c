"""The table of a dataset, made from its indices the first time."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from avdata import storage
from avdata.errors import CorruptShard, UsageError
from avdata.pipeline.shards.column import may_pass
from avdata.pipeline.shards.dataset import Dataset, require_indices
from avdata.pipeline.shards.table import (
    Table,
    TableBuilder,
    TableShard,
    committed_table,
    read_table,
    remove_table,
    table_folder,
)
from avdata.progress import progress

DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError)
"""What reading a table raises that is not there or not whole."""
MANY = 500
"""Shards whose indices take long enough to show progress."""


def open_table(dataset: Dataset) -> Table:
    """CorruptShard when an index is not the one that dataset.json lists; UsageError when there
    are no samples, or no folder to keep the table in; RunError when the table or an index cannot be
    read.

    Of several processes that need it at once, one makes it.
    """
    folder = table_folder(dataset.digest)
    shards = [TableShard(one["name"], one["split"], one["bucket"]) for one in dataset.shards]
    if not any(one["num_samples"] for one in dataset.shards):
        raise UsageError(f"{dataset.root}: the shards have no samples to train on")
    if (found := _whole(shards, folder)) is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with storage.locked(folder.with_name(f"{folder.name}.lock")):
            # Asked first: where there are no locks, one that is committed meanwhile is not removed.
            there = folder.exists()
            if (found := _whole(shards, folder)) is not None:
                return found
            if there:
                remove_table(folder)
            _make(dataset, folder)
            return read_table(shards, folder)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written ({error}); name a folder in AVDATA_CACHE"
        ) from error


def _whole(shards: Sequence[TableShard], folder: Path) -> Table | None:
    """None where there is none, or not a whole one."""
    try:
        return read_table(shards, folder)
    except DAMAGED as error:
        if isinstance(error, OSError) and (passing := may_pass(folder, error)):
            raise passing from error
        return None


def _make(dataset: Dataset, folder: Path) -> None:
    require_indices(dataset)
    count = sum(shard["num_samples"] for shard in dataset.shards)
    with committed_table(folder, count) as builder:
        _fill(builder, dataset)


def _fill(builder: TableBuilder, dataset: Dataset) -> None:
    many = len(dataset.shards) > MANY
    with progress("index", len(dataset.shards)) if many else nullcontext(_silent) as advance:
        for shard, index in dataset.indices():
            if len(index.samples) != shard["num_samples"]:
                raise CorruptShard(
                    f"{dataset.root}/{shard['name']}: {len(index.samples)} samples in its index, "
                    f"{shard['num_samples']} in dataset.json; run `avdata encode` again"
                )
            builder.add(index.samples)
            advance(shard["name"])


def _silent(note: str = "", by: int = 1, work: int = 0) -> None:
    """No progress to show."""
