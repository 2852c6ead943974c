"""`avdata encode` to a real S3 server."""

import json
from pathlib import Path

from avdata import storage
from avdata.jobs.verify import verify
from avdata.pipeline.shards.dataset import open_dataset
from tests.jobs.films import SMALL, encode
from tests.s3 import needs_server

pytestmark = needs_server


def test_the_command_writes_there_what_it_writes_here(
    manifest: Path, tmp_path: Path, s3_bucket: Path
) -> None:
    far = f"{s3_bucket}shards" if str(s3_bucket).endswith("/") else f"{s3_bucket}/shards"
    assert encode(manifest, tmp_path / "out", *SMALL) == 0
    assert encode(manifest, far, *SMALL) == 0
    near, there = open_dataset(tmp_path / "out"), open_dataset(storage.place(far))
    assert there.digest == near.digest
    for path in near.root.glob("*/*"):
        name = storage.below(path, near.root)
        assert (there.root / name).read_bytes() == path.read_bytes()
    said = json.loads((there.root / "dataset.json").read_bytes())
    assert said["shards"] == there.shards
    assert verify(there.root)["samples"] == 4
    (there.root / f"{there.shards[0]['name']}.tar").unlink()  # A killed run, as it were.
    assert encode(manifest, far, *SMALL) == 0
    assert verify(there.root)["problems"] == 0
