"""`report`: looks at what each folder is and puts all of them on one page."""

from collections.abc import Sequence
from pathlib import Path

from avdata.errors import UsageError
from avdata.pipeline.report.gallery import gallery_section
from avdata.pipeline.report.manifest_section import manifest_section
from avdata.pipeline.report.page import Section, write_report
from avdata.pipeline.report.run_section import run_section
from avdata.pipeline.report.shards_section import shards_section

MARKERS = {"manifest": "sources.parquet", "shards": "dataset.json", "run": "metrics.jsonl"}
"""The file that says what a folder is; `avdata clips` names its index as a manifest's clips."""


def report(paths: Sequence[Path], out: Path) -> Path:
    """Writes the page about these folders; UsageError for one that holds nothing to report on."""
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name the file to write, such as {out}/report.html")
    found: dict[str, list[Path]] = {kind: [] for kind in MARKERS}
    for path in paths:
        for kind, folder in recognised(path):
            if folder not in found[kind]:
                found[kind].append(folder)
    sections: list[Section] = []
    for at, root in enumerate(found["manifest"]):
        sections.append(manifest_section(root, _anchor("manifest", at)))
        sections.append(gallery_section(root, _anchor("clips", at)))
    for at, root in enumerate(found["shards"]):
        sections.append(shards_section(root, _anchor("shards", at)))
    if found["run"]:
        sections.append(run_section(found["run"], "training"))
    names = ", ".join(path.resolve().name for path in paths)
    return write_report(out, sections, f"Report on {names}")


def recognised(path: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of the folder itself, else of the folders in it."""
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; name what ingest, encode or train wrote")
    here = _kinds(path)
    inside = sorted(one for one in path.iterdir() if one.is_dir())
    found = here or [pair for folder in inside for pair in _kinds(folder)]
    if not found:
        markers = ", ".join(f"{file} ({kind})" for kind, file in MARKERS.items())
        raise UsageError(
            f"{path}: nothing to report on, here or one folder down; looked for {markers}; "
            "name the folder that ingest, encode or train wrote"
        )
    return found


def _kinds(folder: Path) -> list[tuple[str, Path]]:
    return [(kind, folder) for kind, file in MARKERS.items() if (folder / file).is_file()]


def _anchor(name: str, at: int) -> str:
    return f"{name}-{at + 1}" if at else name
