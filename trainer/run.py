"""A run's folder: what it was asked to do, how far it has come, what it measured.

RUN/run.json                     configuration, shards, their digest, specs and encoders, versions
RUN/metrics.jsonl                one line a step, each step once
RUN/checkpoints/step-00000100/   see `checkpoint`
RUN/samples/                     what `avdata sample` made
"""

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avdata import config as configuration
from avdata import storage
from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape, Specs
from avdata.errors import RunError, UsageError
from avdata.pipeline.shards.dataset import Dataset, describe_dataset
from avdata.pipeline.shards.open_table import open_table
from avdata.trainer.config import MAY_CHANGE, TrainConfig
from avdata.trainer.model.video_tower import require_whole_patches
from avdata.versions import versions


@dataclass(frozen=True, slots=True)
class Run:
    """A prepared run."""

    root: Path
    config: TrainConfig
    shards: Path
    dataset_digest: str
    specs: Specs
    encoders: EncodersConfig
    """Those that made the shards, as `avdata encode` was told of them."""
    clip: ClipShape

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The JSONL file."""
        return self.root / "metrics.jsonl"

    def require_shards(self) -> None:
        """UsageError when they are no longer those it began with."""
        self.dataset()

    def dataset(self) -> Dataset:
        """Its shards; UsageError when they are no longer those it began with."""
        dataset = describe_dataset(self.shards)
        if dataset.digest != self.dataset_digest:
            raise UsageError(
                f"{self.shards}: not the shards that {self.root} began with (digest "
                f"{dataset.digest[:12]}, was {self.dataset_digest[:12]}); train into a new folder"
            )
        return dataset


def prepare(root: Path, shards: Path, config: TrainConfig) -> Run:
    """Writes run.json, or checks that the run that is there may go on under these settings."""
    dataset = describe_dataset(shards)
    open_table(dataset)  # Once, before every process maps it.
    for clip in dataset.buckets.values():
        require_whole_patches(dataset.specs, clip)
    if (root / "run.json").exists():
        _refuse_change(open_run(root), dataset, config)
    else:
        storage.require_ours(root, (), "run")
        if (warning := config.warning()) is not None:  # A run that goes on cannot heed it.
            sys.stderr.write(f"avdata: {root}: {warning}\n")
    storage.write_json(
        root / "run.json",
        {
            "config": configuration.to_plain(config),
            "shards": str(shards if storage.is_remote(shards) else shards.resolve()),
            "dataset_digest": dataset.digest,
            "specs": dataclasses.asdict(dataset.specs),
            "encoders": dataset.provenance.get("config", {}).get("encoders", {}),
            "clip": dataclasses.asdict(dataset.clip),
            "versions": versions(),
        },
    )
    return open_run(root)


def open_run(root: Path) -> Run:
    """UsageError where there is no run."""
    file = root / "run.json"
    if not file.exists():
        what = "no run.json in this folder" if root.is_dir() else "no such folder"
        raise UsageError(f"{root}: {what}; make a run with `avdata train SHARDS --out {root}`")
    plain = storage.read_json(file)
    try:
        return Run(
            root=root,
            config=configuration.from_plain(TrainConfig, plain["config"], str(file)),
            shards=storage.place(plain["shards"]),
            dataset_digest=plain["dataset_digest"],
            specs=Specs.from_plain(plain["specs"]),
            # Shards and runs that do not name theirs were made with the default ones.
            encoders=configuration.from_plain(EncodersConfig, plain.get("encoders", {}), str(file)),
            clip=ClipShape(**plain["clip"]),
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{file}: not what `avdata train` writes ({error})") from error


def _refuse_change(run: Run, dataset: Dataset, config: TrainConfig) -> None:
    run.specs.require(dataset.specs, f"{dataset.root} for {run.root}")
    if run.dataset_digest != dataset.digest:
        raise UsageError(
            f"{run.root}: began with other shards than {dataset.root}; train into a new folder"
        )
    _refuse_other_rates(run, config)
    before, now = (configuration.to_plain(one) for one in (run.config, config))
    for key in before:
        for name, old, new in _differences(key, before[key], now[key]):
            raise UsageError(
                f"{run.root}: began with {name} = {old!r}, asked for {new!r}; "
                "train into a new folder, or ask for what it began with"
            )


def _refuse_other_rates(run: Run, config: TrainConfig) -> None:
    """UsageError where another number of steps would alter rates that were already used."""
    before, now = run.config.steps, config.steps
    kept = min(config.schedule.steady_until(steps, config.warmup_steps) for steps in (before, now))
    reached = max(saved_steps(run.checkpoints), default=0)
    if before != now and reached > kept:
        raise UsageError(
            f"{run.root}: is at step {reached}, where its learning rate has begun to fall towards "
            f"steps = {before}; with {now} it would have been another. Ask for {before}, or train "
            "into a new folder"
        )


def saved_steps(checkpoints: Path) -> list[int]:
    """Of every whole checkpoint in a folder."""
    return [int(path.name[5:]) for path in checkpoints.glob("step-????????") if path.is_dir()]


def _differences(name: str, old: object, new: object) -> Iterator[tuple[str, object, object]]:
    """Dotted names of what differs and may not, each with both values."""
    if name in MAY_CHANGE or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            yield from _differences(f"{name}.{key}", old[key], new[key])
    else:
        yield name, old, new
