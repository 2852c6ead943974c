"""The `avdata` command: each subcommand a thin job over library functions.

Exit codes: 0 done, 1 failed, 2 the command cannot be understood, 3 nothing usable came out.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from avdata import config as configuration
from avdata.errors import UsageError
from avdata.jobs.engine import Engine
from avdata.jobs.shell import Result, run_app

Schema = TypeVar("Schema")

app = typer.Typer(
    help="From a bucket of raw video with sound to a trained joint audio-video model.",
    epilog="`--debug` anywhere shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, as dotted.key=value.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Inline = Annotated[bool, typer.Option("--inline", help="In this process, without Ray.")]
Address = Annotated[str | None, typer.Option("--address", help="A Ray cluster to run on.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Default: one a core.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write; running again goes on.")]
Manifest = Annotated[Path, typer.Argument(help="Folder that `avdata ingest` made.")]
Preset = Annotated[str, typer.Option(help="Model: demo, small or wan5b_tangoflux.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="YAML of named rules.")]


@app.command(epilog="Example: avdata demo out/demo my-videos/")
def demo(
    out: Annotated[Path, typer.Argument(help="Folder to write; running again goes on.")],
    media: Annotated[list[Path] | None, typer.Argument(help="Media to use besides.")] = None,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """The whole chain on a generated corpus, ending with a report; minutes on two cores."""
    from avdata.jobs.demo import DemoConfig, demo

    resolved = _load(DemoConfig, config, settings)
    found = demo(out, media or [], resolved, lambda line: typer.echo(line, err=True))
    result = Result(as_json)
    for mode, losses in found["runs"].items():
        result.line(f"{mode}: {_losses(losses)}")
    result.line(f"report: {found['report']}")
    result.end(found)


@app.command(
    epilog="Example: avdata ingest raw/ 's3://bucket/a/*.mp4' more.csv --out data/manifest"
)
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
    from avdata.pipeline.selection import funnel, quarantine_counts

    resolved = _load(IngestConfig, config, settings)
    manifest = ingest(raw, out, resolved, policy, Engine(inline, address, workers))
    if caption:
        add_captions(out)
    counts, failed = funnel(manifest.table()), quarantine_counts(manifest)
    result = Result(as_json)
    _show_funnel(result, counts)
    for reason, count in failed.items():
        result.line(f"quarantined {count} by {reason}")
    result.line(f"manifest: {manifest.clips_file}")
    result.end({"manifest": str(out), "funnel": counts, "quarantined": failed})


@app.command(epilog="Example: avdata select data/manifest --policy strict.yaml")
def select(directory: Manifest, policy: PolicyFile = None, as_json: Json = False) -> None:
    """Keep or drop again from stored measurements; no policy is the default policy."""
    from avdata.jobs.select import select

    counts = select(directory, policy)
    result = Result(as_json)
    _show_funnel(result, counts)
    result.end({"manifest": str(directory), "funnel": counts})


@app.command(epilog="Example: avdata caption data/manifest")
def caption(directory: Manifest, as_json: Json = False) -> None:
    """Template captions for the kept clips, from their labels and measurements."""
    from avdata.jobs.caption import caption

    count = caption(directory)
    result = Result(as_json)
    result.line(f"captions: {count} clips")
    result.end({"manifest": str(directory), "captions": count})


@app.command(epilog="Example: avdata clips data/manifest --out data/clips --set longer_side=720")
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

    resolved = _load(ClipsConfig, config, settings)
    rows = write_clips(directory, out, resolved, Engine(inline, address, workers))
    result = Result(as_json)
    result.line(f"clips: {len(rows)}, {sum(row.size_bytes for row in rows) / 1e6:.1f} MB")
    result.line(f"index: {out / 'clips.parquet'}")
    result.end({"clips": len(rows), "index": str(out / "clips.parquet")})


@app.command(epilog="Example: avdata encode data/manifest --out data/shards --set height=96")
def encode(
    directory: Manifest,
    out: Out,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Latents and text embeddings of the kept clips into WebDataset shards."""
    from avdata.jobs.encode import EncodeConfig, encode

    resolved = _load(EncodeConfig, config, settings)
    dataset = encode(directory, out, resolved, Engine(inline, address, workers))
    counts = {split: len(dataset.samples(split)) for split in ("train", "val")}
    result = Result(as_json)
    result.line(f"shards: {len(dataset.shards)}, samples: {counts}")
    result.line(f"dataset: {out / 'dataset.json'}")
    result.end({"shards": len(dataset.shards), "samples": counts, "digest": dataset.digest})


@app.command(epilog="Example: avdata verify data/shards")
def verify(
    path: Annotated[Path, typer.Argument(help="A manifest or shards.")],
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make lost indices again from the tars.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Checks a manifest or shards: digests, counts, shapes, finite values, identity."""
    from avdata.jobs.verify import verify

    counts = verify(path, rebuild)
    result = Result(as_json)
    result.line(", ".join(f"{name}: {count}" for name, count in counts.items()))
    result.end(counts)


@app.command(epilog="Example: avdata export data/shards --format energon")
def export(
    shards: Annotated[Path, typer.Argument(help="Folder that `avdata encode` made.")],
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


@app.command(epilog="Example: avdata model show --preset wan5b_tangoflux")
def model(
    action: Annotated[str, typer.Argument(help="show, load or export; see docs/model.md.")],
    run: Annotated[Path | None, typer.Argument(help="Of export: a run's folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Of export: the folder to write.")] = None,
    preset: Preset = "wan5b_tangoflux",
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """What a model has and costs; whether pretrained towers fit; a run's towers as folders."""
    from avdata.jobs.model import ModelJob, perform, sizes_of

    job = _load(ModelJob, config, settings, sizes_of(preset))
    perform(action, run, out, job, Result(as_json))


@app.command(epilog="Example: avdata train data/shards --out runs/joint --set steps=2000")
def train(
    shards: Annotated[Path, typer.Argument(help="Folder that `avdata encode` made.")],
    out: Out,
    mode: Annotated[
        str | None, typer.Option(help="t2av, or t2v for the video-only twin. Default: t2av.")
    ] = None,
    preset: Preset = "demo",
    processes: Annotated[int, typer.Option(min=1, help="One a device; or one a few cores.")] = 1,
    prepare_only: Annotated[
        bool, typer.Option("--prepare", help="Only write RUN/run.json, for your own torchrun.")
    ] = False,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Trains the joint model or its twin; the same command goes on where it was stopped."""
    from avdata.jobs.train import progress_of, train
    from avdata.trainer.config import TrainConfig
    from avdata.trainer.model.config import preset as model_of
    from avdata.trainer.run import prepare

    under = {"model": configuration.to_plain(model_of(preset))}
    overrides = [*(settings or ()), *([f"mode={mode}"] if mode else ())]
    resolved = _load(TrainConfig, config, overrides, under)
    if prepare_only:
        run = prepare(out, shards, resolved)
        result = Result(as_json)
        result.line(f"prepared: torchrun --nproc-per-node N -m avdata.trainer {run.root}")
        result.end({"run": str(run.root)})
        return
    run = train(out, shards, resolved, processes)
    found = progress_of(run)
    result = Result(as_json)
    result.line(_losses(found))
    result.line(f"run: {run.root}")
    result.end({"run": str(run.root), **found})


@app.command(epilog="Example: avdata sample runs/joint --count 4 --set steps=50")
def sample(
    run: Annotated[Path, typer.Argument(help="Folder that `avdata train` made.")],
    video_caption: Annotated[str | None, typer.Option(help="What is seen.")] = None,
    audio_caption: Annotated[str | None, typer.Option(help="What is heard.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many; each has its own seed.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the first one's noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Writes mp4 files with sound; without captions, those of held-out clips serve."""
    from avdata.jobs.sample import SampleConfig, prompts_of, sample
    from avdata.trainer.run import open_run
    from avdata.trainer.sample import Prompt

    if (video_caption is None) != (audio_caption is None):
        raise UsageError("give both --video-caption and --audio-caption, or neither")
    if video_caption is not None and audio_caption is not None:
        prompts = [Prompt(video_caption, audio_caption, seed + k) for k in range(count)]
    else:
        prompts = prompts_of(run, count, seed)
    under = {"encoders": configuration.to_plain(open_run(run).encoders)}
    resolved = _load(SampleConfig, config, settings, under)
    paths = sample(run, prompts, resolved.sampler, device, resolved.encoders)
    result = Result(as_json)
    for path in paths:
        result.line(str(path))
    result.end({"samples": [str(path) for path in paths]})


@app.command(epilog="Example: avdata report data/manifest runs/joint runs/twin --out report.html")
def report(
    paths: Annotated[list[Path], typer.Argument(help="Manifests, shards, runs, or a demo.")],
    out: Annotated[Path | None, typer.Option(help="Default: report.html in the first.")] = None,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page about what is in these folders."""
    from avdata.pipeline.report.report import report

    page = report(paths, out or paths[0] / "report.html")
    result = Result(as_json)
    result.line(str(page))
    result.end({"report": str(page)})


@app.command(epilog="Example: avdata doctor")
def doctor(as_json: Json = False) -> None:
    """What works on this machine, what is missing, and what to do about it."""
    from avdata.jobs.doctor import diagnose

    findings = diagnose()
    result = Result(as_json)
    for finding in findings:
        result.line(f"{finding.state:8} {finding.what}: {finding.detail}")
    result.end({one.what: {"state": one.state, "detail": one.detail} for one in findings})
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def _load(
    schema: type[Schema],
    file: Path | None,
    settings: list[str] | None,
    under: dict[str, Any] | None = None,
) -> Schema:
    return configuration.load(schema, file, settings or (), under)


def _show_funnel(result: Result, counts: dict[str, int]) -> None:
    result.line(f"clips: {counts['clips']}, kept: {counts['keep']}")
    for reason, count in counts.items():
        if reason not in ("clips", "keep"):
            result.line(f"  dropped {count} by {reason}")


def _losses(found: dict[str, Any]) -> str:
    parts = [f"step {found['step']}"]
    for name in ("video", "audio"):
        if f"loss_{name}_first" in found:
            first, last = found[f"loss_{name}_first"], found[f"loss_{name}_last"]
            parts.append(f"{name} loss {first:.3f} -> {last:.3f}")
        if f"val_loss_{name}" in found:
            parts.append(f"held out {found[f'val_loss_{name}']:.3f}")
    return ", ".join(parts)


def main() -> None:
    """The console script."""
    sys.exit(run_app(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
