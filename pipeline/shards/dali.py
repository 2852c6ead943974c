"""`NAME.idx` beside each tar: what NVIDIA DALI's `fn.readers.webdataset` takes as `index_paths`.

Text, as its tool wds2idx writes it (version 1.2): a line with the version and the number of
samples, then a line a sample with extension, offset, length and name of each of its members.
"""

from pathlib import Path

from avdata import storage
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.index import IndexedSample


def write_dali(dataset: Dataset) -> list[Path]:
    """One index a tar; answers their paths."""
    paths = []
    for shard, index in dataset.indices():
        lines = [f"v1.2 {len(index.samples)}", *map(_line, index.samples)]
        path = dataset.root / f"{shard['name']}.idx"
        with storage.committed(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n")
        paths.append(path)
    return paths


def _line(sample: IndexedSample) -> str:
    return " ".join(
        f"{name} {member.offset} {member.length} {sample.key}.{name}"
        for name, member in sample.members.items()
    )
