"""`wids-SPLIT.json`: the shard lists of `wids`, webdataset's random-access reader, version 1.

    wids.ShardListDataset("SHARDS/wids-train.json", localname=lambda url: url)

reads the tars where they are; without `localname` it copies each into its cache first.
"""

from pathlib import Path

from avdata import storage
from avdata.pipeline.shards.dataset import Dataset


def write_wids(dataset: Dataset) -> list[Path]:
    """One list a split, the URLs of its tars relative to the list; answers the lists."""
    paths = []
    for split in dict.fromkeys(shard["split"] for shard in dataset.shards):
        tars = [
            {
                "url": f"{shard['name']}.tar",
                "nsamples": shard["num_samples"],
                "filesize": shard["size_bytes"],
            }
            for shard in dataset.shards
            if shard["split"] == split
        ]
        path = dataset.root / f"wids-{split}.json"
        kind = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": split}
        storage.write_json(path, {**kind, "shardlist": tars})
        paths.append(path)
    return paths
