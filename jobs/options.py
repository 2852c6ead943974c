"""Options that several commands share, and how settings are read."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from avdata import config as configuration
from avdata.errors import UsageError
from avdata.storage import place, printable

Schema = TypeVar("Schema")


def local(name: str) -> Path:
    """A path of this machine, absolute, as workers have other working directories; UsageError for a
    URL, by whose name a folder would be made, and for a name that is not UTF-8.
    """
    if "://" in name:
        raise UsageError(
            f"{name}: only shards and raw media may lie there; give a folder on this machine or, "
            "for a cluster, on a mount that all its machines share"
        )
    return _with_text(Path(name).absolute())


def far_or_near(name: str) -> Path:
    """As `storage.place`, and where it is local absolute."""
    return _with_text(place(name).absolute())


def _with_text(path: Path) -> Path:
    shown = printable(str(path))
    if shown != str(path):
        raise UsageError(f"{shown}: its name is not UTF-8, and goes into files that are; rename it")
    return path


Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, as dotted.key=value.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Inline = Annotated[bool, typer.Option("--inline", help="In this process, without Ray.")]
Address = Annotated[str | None, typer.Option("--address", help="A Ray cluster to run on.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Default: one a core.")]
Out = Annotated[
    Path, typer.Option("--out", parser=local, help="Folder to write; running again goes on.")
]
ShardsOut = Annotated[
    Path,
    typer.Option(
        "--out", parser=far_or_near, help="Folder or s3:// prefix; running again goes on."
    ),
]
Shards = Annotated[
    Path, typer.Argument(parser=far_or_near, help="What `avdata encode` made; local or s3://.")
]
Manifest = Annotated[Path, typer.Argument(parser=local, help="Folder that `avdata ingest` made.")]
Preset = Annotated[str, typer.Option(help="Model: demo, small or wan5b-tangoflux.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="YAML of named rules.")]


def load(
    schema: type[Schema],
    file: Path | None,
    settings: list[str] | None,
    under: dict[str, Any] | None = None,
) -> Schema:
    """The settings of a command; see `avdata.config.load`."""
    return configuration.load(schema, file, settings or (), under)


def losses(found: dict[str, Any]) -> str:
    """First and last losses of a run on one line."""
    parts = [f"step {found['step']}"]
    for name in ("video", "audio"):
        if f"loss_{name}_first" in found:
            first, last = found[f"loss_{name}_first"], found[f"loss_{name}_last"]
            parts.append(f"{name} loss {first:.3f} -> {last:.3f}")
        if f"val_loss_{name}" in found:
            parts.append(f"held out {found[f'val_loss_{name}']:.3f}")
    return ", ".join(parts)
