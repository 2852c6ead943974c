"""`NAME.json` beside each tar: offset and length of every member by its name.

webshart pairs it with the tar by name (`webshart.discover_dataset("SHARDS/BUCKET")`). It is also
the index of Hugging Face's data sets of tars (hfutils). They call a length `size`; webshart takes
that name, too.
"""

from pathlib import Path

from avdata import storage
from avdata.pipeline.shards.dataset import Dataset


def write_webshart(dataset: Dataset) -> list[Path]:
    """One index a tar; answers their paths."""
    paths = []
    for shard, index in dataset.indices():
        files = {
            f"{sample.key}.{name}": {
                "offset": member.offset,
                "size": member.length,
            }
            for sample in index.samples
            for name, member in sample.members.items()
        }
        path = dataset.root / f"{shard['name']}.json"
        storage.write_json(path, {"filesize": index.size_bytes, "files": files})
        paths.append(path)
    return paths
