"""The `avdata` command: each subcommand a thin job over library functions.

Exit codes: 0 done, 1 failed, 2 the command cannot be understood, 3 nothing usable came out.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from avdata.jobs import data_commands, options, training_commands
from avdata.jobs.options import Config, Json, Set
from avdata.jobs.shell import Result, run_app

app = typer.Typer(
    help="From a bucket of raw video with sound to a trained joint audio-video model.",
    epilog="`--debug` anywhere shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def demo(
    out: Annotated[Path, typer.Argument(help="Folder to write; running again goes on.")],
    media: Annotated[list[Path] | None, typer.Argument(help="Media to use besides.")] = None,
    config: Config = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """The whole chain on a generated corpus, ending with a report; minutes on two cores."""
    from avdata.jobs.demo import DemoConfig, demo

    resolved = options.load(DemoConfig, config, settings)
    found = demo(out, media or [], resolved, lambda line: typer.echo(line, err=True))
    result = Result(as_json)
    for mode, losses in found["runs"].items():
        result.line(f"{mode}: {options.losses(losses)}")
    result.line(f"report: {found['report']}")
    result.end(found)


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


COMMANDS = (
    (demo, "avdata demo out/demo my-videos/"),
    (
        data_commands.ingest,
        "avdata ingest raw/ 's3://bucket/a/*.mp4' more.csv --out data/manifest",
    ),
    (data_commands.select, "avdata select data/manifest --policy strict.yaml"),
    (data_commands.caption, "avdata caption data/manifest"),
    (
        data_commands.semantics,
        "avdata semantics data/manifest --set picture.path=clip/ --set sound.path=clap/",
    ),
    (
        data_commands.clips,
        "avdata clips data/manifest --out data/clips --set longer_side=720",
    ),
    (
        data_commands.encode,
        "avdata encode data/manifest --out data/shards --set height=96",
    ),
    (data_commands.verify, "avdata verify data/shards"),
    (data_commands.export, "avdata export data/shards --format energon"),
    (training_commands.model, "avdata model show --preset wan5b-tangoflux"),
    (
        training_commands.train,
        "avdata train data/shards --out runs/joint --set steps=2000",
    ),
    (training_commands.sample, "avdata sample runs/joint --count 4 --set steps=50"),
    (report, "avdata report data/manifest runs/joint runs/twin --out report.html"),
    (doctor, "avdata doctor"),
)
for _command, _example in COMMANDS:
    app.command(epilog=f"Example: {_example}")(_command)


def main() -> None:
    """The console script."""
    sys.exit(run_app(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
