"""`avdata export`: sidecar files by which other libraries read the shards as they are."""

from pathlib import Path

from avdata.pipeline.shards.dataset import open_dataset
from avdata.pipeline.shards.exports import export


def export_shards(shards: Path, name: str) -> list[Path]:
    """The files written; UsageError for another format or a folder without shards."""
    return export(open_dataset(shards), name)
