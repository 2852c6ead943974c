"""Commands from raw media to shards."""

from pathlib import Path
from typing import Annotated

import typer

from avdata.jobs import options
from avdata.jobs.engine import Engine
from avdata.jobs.options import (
    Address,
    Config,
    Inline,
    Json,
    Manifest,
    Out,
    PolicyFile,
    Set,
    Shards,
    ShardsOut,
    Workers,
)
from avdata.jobs.shell import Result
from avdata.storage import place


def ingest(
    raw: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns, lists (.txt .csv .parquet); local or s3://"),
    ],
    out: Out,
    policy: PolicyFile = None,
    caption: Annotated[
        bool, typer.Option("--caption", help="Caption the kept clips, too.")
    ] = False,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Raw media to a manifest: shots, clips, measurements, labels, keep or drop."""
    from avdata.jobs.caption import caption as add_captions
    from avdata.jobs.ingest import ingest
    from avdata.pipeline.measure.source import IngestConfig
    from avdata.pipeline.selection import funnel, quarantine_counts, require_any_kept

    resolved = options.load(IngestConfig, config, settings)
    engine = Engine(inline, address, workers)
    manifest = ingest(raw, out, resolved, policy, engine)
    try:
        if caption:
            add_captions(out, engine=engine)
    finally:  # Why nothing is kept is said though nothing can be captioned.
        counts, failed = funnel(manifest.table()), quarantine_counts(manifest)
        result = Result(as_json)
        _show_funnel(result, counts)
        for reason, count in failed.items():
            result.line(f"quarantined {count} by {reason}")
        if not (out / "semantics.parquet").exists():
            result.line("meaning: not measured; `avdata semantics` does, with CLIP and CLAP")
        result.line(f"manifest: {manifest.clips_file}")
        result.end({"manifest": str(out), "funnel": counts, "quarantined": failed})
    require_any_kept(out, counts["clips"], counts["keep"])


def select(directory: Manifest, policy: PolicyFile = None, as_json: Json = False) -> None:
    """Keep or drop again from stored measurements; no policy is the default policy."""
    from avdata.jobs.select import select
    from avdata.pipeline.selection import require_any_kept

    counts = select(directory, policy)
    result = Result(as_json)
    _show_funnel(result, counts)
    result.end({"manifest": str(directory), "funnel": counts})
    require_any_kept(directory, counts["clips"], counts["keep"])


def caption(
    directory: Manifest,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
    inline: Inline = False,
    address: Address = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Default: one, or one a GPU.")
    ] = None,
) -> None:
    """Captions for every kept clip: templates, or by models behind an endpoint or in-process.

    Example: avdata caption DIR --set video.kind=endpoint --set video.url=http://gpu1:8000/v1
    --set video.model=Qwen/Qwen2.5-VL-7B-Instruct
    """
    from avdata.jobs.caption import caption
    from avdata.jobs.caption_config import CaptionConfig

    resolved = options.load(CaptionConfig, config, settings)
    counts = caption(directory, resolved, Engine(inline, address, workers))
    result = Result(as_json)
    result.line(f"captions: {counts.captioned} clips")
    for reason, count in counts.failed.items():
        result.line(f"  none for {count} clips by {reason}")
    result.end(
        {
            "manifest": str(directory),
            "captions": counts.captioned,
            "failed": counts.failed,
            "asked": counts.asked,
        }
    )


def semantics(
    directory: Manifest,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Embeddings, caption scores and tags of the kept clips, by CLIP and CLAP."""
    from avdata.jobs.semantics import semantics
    from avdata.jobs.semantics_config import SemanticsConfig

    resolved = options.load(SemanticsConfig, config, settings)
    counts = semantics(directory, resolved, Engine(inline, address, workers))
    result = Result(as_json)
    for medium, count in counts.embedded.items():
        result.line(f"{medium}: {count} of {counts.clips} clips")
    result.end(
        {
            "manifest": str(directory),
            "clips": counts.clips,
            "embedded": counts.embedded,
            "skipped": counts.skipped,
        }
    )


def clips(
    directory: Manifest,
    out: Out,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """The kept clips as mp4 files, each decoded again and counted, with an index."""
    from avdata.jobs.clips import ClipsConfig, write_clips

    resolved = options.load(ClipsConfig, config, settings)
    done = write_clips(directory, out, resolved, Engine(inline, address, workers))
    rows, failed = done.rows, len(done.failed)
    result = Result(as_json)
    result.line(f"clips: {len(rows)}, {sum(row.size_bytes for row in rows) / 1e6:.1f} MB")
    if failed:
        result.line(f"without a file: {failed} clips; {out / 'failed.csv'} says why")
    result.line(f"index: {out / 'clips.parquet'}")
    result.end({"clips": len(rows), "failed": failed, "index": str(out / "clips.parquet")})


def encode(
    directory: Manifest,
    out: ShardsOut,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Latents and text embeddings of the kept clips into WebDataset shards."""
    from avdata.jobs.encode import EncodeConfig, encode

    resolved = options.load(EncodeConfig, config, settings)
    dataset = encode(directory, out, resolved, Engine(inline, address, workers))
    counts = {split: len(dataset.samples(split)) for split in ("train", "val")}
    result = Result(as_json)
    result.line(f"shards: {len(dataset.shards)}, samples: {counts}")
    if dataset.num_failed:
        result.line(f"left out, for they could not be decoded: {dataset.num_failed} clips")
    result.line(f"dataset: {out / 'dataset.json'}")
    result.end(
        {
            "shards": len(dataset.shards),
            "samples": counts,
            "failed": dataset.num_failed,
            "digest": dataset.digest,
        }
    )


def verify(
    path: Annotated[
        Path, typer.Argument(parser=place, help="A manifest or shards; shards also s3://.")
    ],
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make lost indices again from the tars.")
    ] = False,
    again: Annotated[
        int,
        typer.Option(min=0, help="Encode so many samples again from their sources and compare."),
    ] = 0,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Of shards: compare every sample's captions with this manifest's."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Checks a manifest or shards: digests, counts, shapes, finite values, identity."""
    from avdata.jobs.verify import verify

    counts = verify(path, rebuild, again, manifest)
    result = Result(as_json)
    result.line(", ".join(f"{name}: {count}" for name, count in counts.items()))
    result.end(counts)


def export(
    shards: Shards,
    name: Annotated[str, typer.Option("--format", help="wids, energon, dali or webshart.")],
    as_json: Json = False,
) -> None:
    """Index files by which other libraries read the shards as they are; tars are not copied."""
    from avdata.jobs.export import export_shards

    paths = [str(path) for path in export_shards(shards, name)]
    result = Result(as_json)
    for path in paths:
        result.line(path)
    result.end({"format": name, "files": paths})


def _show_funnel(result: Result, counts: dict[str, int]) -> None:
    result.line(f"clips: {counts['clips']}, kept: {counts['keep']}")
    for reason, count in counts.items():
        if reason not in ("clips", "keep"):
            result.line(f"  dropped {count} by {reason}")
