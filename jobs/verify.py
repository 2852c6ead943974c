"""`avdata verify`: checks a manifest or shards and reports everything that is wrong."""

from pathlib import Path

from avdata import storage
from avdata.errors import RunError, UsageError
from avdata.pipeline.check import check_manifest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.shards.dataset import open_dataset
from avdata.pipeline.shards.rebuild import rebuild_indices
from avdata.pipeline.shards.verify import verify_shards
from avdata.progress import progress


def verify(path: Path, rebuild: bool = False) -> dict[str, int]:
    """Counts of what was checked; RunError lists what is wrong.

    With `rebuild`, indices of shards that are missing or damaged are made again from the tars.
    """
    with storage.reaching(path):
        shards = (path / "dataset.json").exists()
    if shards:
        rebuilt = {"rebuilt": len(rebuild_indices(path))} if rebuild else {}
        return {**_shards(path), **rebuilt}
    if isinstance(path, Path) and (path / "clips.parquet").exists():
        if rebuild:
            raise UsageError(f"{path}: --rebuild is for shards; this is a manifest")
        return _manifest(path)
    what = "neither clips.parquet nor dataset.json in it" if path.is_dir() else "no such folder"
    raise UsageError(f"{path}: {what}; give what `avdata ingest` or `avdata encode` made")


def _shards(path: Path) -> dict[str, int]:
    dataset = open_dataset(path)
    with progress("verify", len(dataset.shards)) as advance:
        report = verify_shards(dataset, advance)
    lines = [f"{one.shard} {one.key}: {one.what}" for one in report.problems]
    _refuse(path, lines)
    return {"shards": report.num_shards, "samples": report.num_samples, "problems": 0}


def _manifest(path: Path) -> dict[str, int]:
    manifest = Manifest(path)
    _refuse(path, check_manifest(manifest))
    return {
        "clips": len(manifest.table()),
        "quarantined": len(manifest.quarantined()),
        "problems": 0,
    }


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise RunError(f"{path}: {len(problems)} problems{listed}")
