"""Where a run's metrics go beside its JSONL file: TensorBoard or Weights & Biases, where asked."""

import contextlib
import importlib.util
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avdata import storage
from avdata.errors import UsageError

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """The file is always written; these as well, if they are installed."""

    tensorboard: bool = False
    """Into RUN/tensorboard."""
    wandb: bool = False
    """Into a W&B run that goes on with this run; WANDB_MODE=offline keeps it on this machine."""
    project: str = "avdata"
    """Of W&B."""


def require_installed(config: TrackConfig) -> None:
    """UsageError where something is asked for that is not there."""
    for name in ("tensorboard", "wandb"):
        if getattr(config, name) and importlib.util.find_spec(name) is None:
            raise UsageError(f"track.{name}: not installed; pip install 'avdata[track]'")


@contextmanager
def tracked(
    config: TrackConfig, root: Path, resume_step: int, settings: Mapping[str, Any]
) -> Iterator[Callable[[Line], None]]:
    """A function that takes each line of metrics, its numbers alone, nested ones by dotted names.

    Lines beyond `resume_step`, of a run that was killed, give way to those that come in
    TensorBoard; W&B keeps the first line of a step, which is the same to the bit where as many
    processes go on.
    """
    with contextlib.ExitStack() as open_ones:
        sinks: list[Callable[[Line], None]] = []
        if config.tensorboard:
            sinks.append(open_ones.enter_context(_tensorboard(root, resume_step)))
        if config.wandb:
            sinks.append(open_ones.enter_context(_wandb(config, root, settings)))

        def take(line: Line) -> None:
            for sink in sinks:
                sink(line)

        yield take


def numbers(line: Line, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Names and values; lists by their place."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield from numbers({str(k): one for k, one in enumerate(value)}, f"{prefix}{key}.")
        elif isinstance(value, (int, float)):
            yield prefix + key, float(value)


@contextmanager
def _tensorboard(root: Path, resume_step: int) -> Iterator[Callable[[Line], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(root / "tensorboard"), purge_step=resume_step + 1)

    def take(line: Line) -> None:
        for name, value in numbers(line):
            writer.add_scalar(name, value, line["step"])

    try:
        yield take
    finally:
        writer.close()


@contextmanager
def _wandb(
    config: TrackConfig, root: Path, settings: Mapping[str, Any]
) -> Iterator[Callable[[Line], None]]:
    import wandb

    file = root / "wandb.json"
    if not file.exists():
        storage.write_json(file, {"id": secrets.token_hex(8)})
    try:
        run = wandb.init(
            project=config.project,
            name=root.resolve().name,
            id=storage.read_json(file)["id"],
            resume="allow",
            dir=str(root),
            config=dict(settings),
            settings=wandb.Settings(console="off"),  # Prints are for whoever started the run.
        )
    except wandb.Error as error:
        raise UsageError(
            f"track.wandb: {error}; log in with `wandb login`, or set WANDB_MODE=offline, and give "
            "the same command"
        ) from error
    try:
        yield lambda line: run.log(dict(numbers(line)), step=line["step"])
    finally:
        run.finish()
