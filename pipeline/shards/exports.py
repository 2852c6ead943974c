"""Sidecar files by which other libraries read the shards as they are; the tars are not copied.

Each format is one function from a dataset to the files it wrote. All that they need is in the
indices, so an export reads no tar. Exports go when a shard is written again or removed, for they
would point to the wrong bytes.
"""

from collections.abc import Callable
from pathlib import Path

from avdata.errors import UsageError
from avdata.pipeline.shards.dali import write_dali
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.energon import META, write_energon
from avdata.pipeline.shards.webshart import write_webshart
from avdata.pipeline.shards.wids import write_wids

FORMATS: dict[str, Callable[[Dataset], list[Path]]] = {
    "wids": write_wids,
    "energon": write_energon,
    "dali": write_dali,
    "webshart": write_webshart,
}
OF_A_SHARD = (".tar.idx", ".idx", ".json")
OF_ALL = (
    "wids-train.json",
    "wids-val.json",
    *(f"{META}/{name}" for name in (".info.json", "split.yaml", "index.sqlite", "index.uuid")),
)


def export(dataset: Dataset, name: str) -> list[Path]:
    """Writes one format's files, each whole or absent; again, the same bytes.

    UsageError for a format that is not known.
    """
    if name not in FORMATS:
        raise UsageError(f"--format {name}: unknown; known: {', '.join(FORMATS)}")
    return FORMATS[name](dataset)


def remove_exports(root: Path, shard: str) -> None:
    """Those that speak of a shard: its own, and the lists of all shards."""
    for path in (
        *(root / f"{shard}{suffix}" for suffix in OF_A_SHARD),
        *map(root.joinpath, OF_ALL),
    ):
        path.unlink(missing_ok=True)
