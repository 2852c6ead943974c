"""What the trainer reaches on a device, each layer as it is and compiled.

    python benchmarks/train_pace.py SHARDS [--preset small] [--steps 40] [--processes 1]
        [--backends none inductor] [--set precision=bfloat16 ...]

Each is a run of `avdata train` on the same clips in the same order; the first quarter of its steps,
in which kernels are chosen and compiled, is left out. Given are medians over the other steps, and
between the first and third quartile. MFU is null where the device's peak is not known.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from avdata import config as configuration
from avdata.jobs.train import Start, train
from avdata.trainer.config import TrainConfig
from avdata.trainer.metrics import read_metrics
from avdata.trainer.model.config import preset

COLUMNS = (
    ("seconds a step", "seconds"),
    ("clips/s", "samples_per_second"),
    ("tokens/s", "tokens_per_second"),
    ("TFLOP/s a device", "tflops_per_device"),
    ("MFU", "mfu"),
    ("waiting for data", "data_wait_share"),
    ("waiting for checkpoints", "checkpoint_stall_share"),
    ("peak GiB", "memory_gib"),
)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--backends", nargs="+", default=["none", "inductor"])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    lines = [
        "| layers | " + " | ".join(title for title, _ in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for backend in given.backends:
        settings = [f"steps={given.steps}", "val_samples=0", *given.settings]
        settings += [f"compile={'null' if backend == 'none' else backend}"]
        under = {"model": configuration.to_plain(preset(given.preset))}
        config = configuration.load(TrainConfig, None, settings, under)
        with tempfile.TemporaryDirectory() as folder:
            run = train(Path(folder) / "run", given.shards, config, Start(given.processes))
            told = read_metrics(run.metrics)[given.steps // 4 :]
        cells = [_spread([line[key] for line in told]) for _, key in COLUMNS]
        lines.append(f"| {backend} | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


def _spread(values: list[float | None]) -> str:
    known = [one for one in values if one is not None]
    if not known:
        return "null"
    first, middle, third = statistics.quantiles(known, n=4)
    return f"{middle:.3g} ({first:.3g} to {third:.3g})"


if __name__ == "__main__":
    main()
