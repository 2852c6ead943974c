"""Commands from shards to a trained model and its samples."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from avdata import config as configuration
from avdata.errors import UsageError
from avdata.jobs import options
from avdata.jobs.options import Address, Config, Json, Out, Preset, Set, Shards
from avdata.jobs.shell import Result


def model(
    action: Annotated[str, typer.Argument(help="show, load or export; see docs/model.md.")],
    run: Annotated[Path | None, typer.Argument(help="Of export: a run's folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Of export: the folder to write.")] = None,
    preset: Preset = "wan5b-tangoflux",
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """What a model has and costs; whether pretrained towers fit; a run's towers as folders."""
    from avdata.jobs.model import ModelJob, perform, sizes_of

    job = options.load(ModelJob, config, settings, sizes_of(preset))
    perform(action, run, out, job, Result(as_json))


def train(
    shards: Shards,
    out: Out,
    mode: Annotated[
        str | None, typer.Option(help="t2av, or t2v for the video-only twin. Default: t2av.")
    ] = None,
    preset: Preset = "demo",
    processes: Annotated[int, typer.Option(min=1, help="One a device; or one a few cores.")] = 1,
    ray: Annotated[bool, typer.Option("--ray", help="Start them by Ray Train.")] = False,
    least: Annotated[
        int | None,
        typer.Option("--min-processes", min=1, help="With --ray: go on with so few."),
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=0, help="Start again so often when a process is lost.")
    ] = 0,
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it will do, need and take.")
    ] = False,
    prepare_only: Annotated[
        bool, typer.Option("--prepare", help="Only write RUN/run.json, for your own torchrun.")
    ] = False,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Trains the joint model or its twin; the same command goes on where it was stopped."""
    from avdata.jobs.train import Start, progress_of, train
    from avdata.trainer.config import TrainConfig
    from avdata.trainer.model.config import preset as model_of
    from avdata.trainer.run import prepare

    under = {"model": configuration.to_plain(model_of(preset))}
    overrides = [*(settings or ()), *([f"mode={mode}"] if mode else ())]
    resolved = options.load(TrainConfig, config, overrides, under)
    result = Result(as_json)
    if dry_run:
        from avdata.trainer.dry_run import forecast

        expected = forecast(shards, resolved, processes)
        for line in expected.lines():
            result.line(line)
        result.end(expected.plain())
        return
    if prepare_only:
        run = prepare(out, shards, resolved)
        start_with = "torchrun --nproc-per-node N --shutdown-timeout 600 -m avdata.trainer"
        result.line(f"prepared: {start_with} {run.root}")
        result.end({"run": str(run.root)})
        return
    start = Start(processes, restarts, ray, least, address)
    run = train(out, shards, resolved, start)
    found = progress_of(run)
    result.line(options.losses(found))
    result.line(f"run: {run.root}")
    result.end({"run": str(run.root), **found})


def sample(
    run: Annotated[Path, typer.Argument(help="Folder that `avdata train` made.")],
    video_caption: Annotated[str | None, typer.Option(help="What is seen.")] = None,
    audio_caption: Annotated[str | None, typer.Option(help="What is heard.")] = None,
    negative_video_caption: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    negative_audio_caption: Annotated[str | None, typer.Option(help="What not to sound.")] = None,
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
    prompts = [
        replace(
            prompt, negative_video=negative_video_caption, negative_audio=negative_audio_caption
        )
        for prompt in prompts
    ]
    under = {"encoders": configuration.to_plain(open_run(run).encoders)}
    resolved = options.load(SampleConfig, config, settings, under)
    paths = sample(run, prompts, resolved.sampler, device, resolved.encoders)
    result = Result(as_json)
    for path in paths:
        result.line(str(path))
    result.end({"samples": [str(path) for path in paths]})
