"""`avdata verify`: checks a manifest or shards and reports everything that is wrong."""

from pathlib import Path

from avdata import config as configuration
from avdata import storage
from avdata.encoders.device import usable
from avdata.errors import RunError, UsageError
from avdata.jobs.encode import EncodeConfig
from avdata.pipeline.check import check_manifest
from avdata.pipeline.guard import ask_again
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.shards.dataset import open_dataset
from avdata.pipeline.shards.facts import said
from avdata.pipeline.shards.identity import check_identity
from avdata.pipeline.shards.rebuild import rebuild_indices
from avdata.pipeline.shards.verify import verify_shards
from avdata.pipeline.sources.copies import LocalCopies
from avdata.progress import progress


def verify(
    path: Path, rebuild: bool = False, again: int = 0, manifest: Path | None = None
) -> dict[str, int]:
    """Counts of what was checked; RunError lists what is wrong.

    With `rebuild`, indices of shards that are missing or damaged are made again from the tars. With
    `again`, so many samples are encoded again from their sources and compared. With `manifest`,
    captions of all samples must be those that it has for their clips.
    """
    with storage.reaching(path):
        shards = (path / "dataset.json").exists()
    if shards:
        rebuilt = {"rebuilt": len(rebuild_indices(path))} if rebuild else {}
        return {**_shards(path, manifest), **rebuilt, **(_again(path, again) if again else {})}
    if isinstance(path, Path) and (path / "clips.parquet").exists():
        if rebuild or again or manifest:
            option = "--rebuild" if rebuild else "--again" if again else "--manifest"
            raise UsageError(f"{path}: {option} is for shards; this is a manifest")
        return _manifest(path)
    what = "neither clips.parquet nor dataset.json in it" if path.is_dir() else "no such folder"
    raise UsageError(f"{path}: {what}; give what `avdata ingest` or `avdata encode` made")


def _shards(path: Path, manifest: Path | None) -> dict[str, int]:
    dataset = open_dataset(path)
    clips = None if manifest is None else Manifest(manifest).clips()
    captions = None if clips is None else {one.clip_id: said(one) for one in clips}
    with progress("verify", len(dataset.shards)) as advance:
        report = verify_shards(dataset, advance, captions)
    lines = [f"{one.shard} {one.key}: {one.what}" for one in report.problems]
    _refuse(path, lines)
    return {"shards": report.num_shards, "samples": report.num_samples, "problems": 0}


def _again(path: Path, count: int) -> dict[str, int]:
    dataset = open_dataset(path)
    plain = dataset.provenance.get("config", {})
    config = configuration.from_plain(EncodeConfig, plain, str(path / "dataset.json"))
    dataset.specs.require(config.encoders.specs(), f"{path}, encoders to compare it with")
    device = usable("cpu" if config.device == "cpu" else "auto")  # This may be another machine.
    encoders = config.encoders.open(device)
    # What could be fetched to be encoded can be fetched again.
    copies = LocalCopies(config.max_copies_gib)
    found = check_identity(dataset, encoders, config.fit, count, copies)
    _refuse(path, [f"{one.shard} {one.key}: {one.what}" for one in found.problems])
    return {"encoded again": found.num_encoded, "without source": found.num_without_source}


def _manifest(path: Path) -> dict[str, int]:
    manifest = Manifest(path)
    guarded = ask_again(manifest)
    compared, strangers = (None, []) if guarded is None else guarded
    _refuse(path, check_manifest(manifest) + strangers)
    return {
        "clips": len(manifest.table()),
        "quarantined": len(manifest.quarantined()),
        **({} if compared is None else {"captions compared with clips": compared}),
        "problems": 0,
    }


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise RunError(f"{path}: {len(problems)} problems{listed}")
