"""A training run's folder as the report reads it, whatever a killed run has left unfinished."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Run:
    """The metrics of one run, by step."""

    root: Path
    label: str
    lines: list[dict[str, Any]]
    troubles: list[str] = field(default_factory=list)
    """What is missing or could not be read, in words."""

    def series(self, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Steps and values of the lines that have this key; NaN where it is not finite."""
        found = [(line["step"], line[key]) for line in self.lines if _is_number(line.get(key))]
        pairs = np.array(found, float).reshape(-1, 2)
        values = np.where(np.isfinite(pairs[:, 1]), pairs[:, 1], np.nan)
        return pairs[:, 0], values


def read_run(root: Path, label: str) -> Run:
    """A resumed run may have written a step twice: the later line counts."""
    by_step: dict[int, dict[str, Any]] = {}
    troubles = []
    bad = repeated = 0
    for text in (root / "metrics.jsonl").read_text(errors="replace").splitlines():
        line = _parsed(text)
        if line is None:
            bad += 1
            continue
        repeated += line["step"] in by_step
        by_step[line["step"]] = line
    lines = [by_step[step] for step in sorted(by_step)]
    losses = (line["loss"] for line in lines if _is_number(line.get("loss")))
    infinite = sum(not math.isfinite(loss) for loss in losses)
    for count, what in (
        (bad, "line of metrics.jsonl could not be read"),
        (repeated, "step was written twice, the later line is shown"),
        (infinite, "step had a loss that is not finite"),
    ):
        if count:
            troubles.append(f"{count:,} x {what}")
    if not lines:
        troubles.append("metrics.jsonl has no steps yet")
    return Run(root, label, lines, troubles)


def read_object(file: Path) -> dict[str, Any] | None:
    """A JSON object, None where there is none that can be read."""
    try:
        plain = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return plain if isinstance(plain, dict) else None


def flattened(plain: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values as JSON, in the file's order."""
    rows: list[tuple[str, str]] = []
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            rows += flattened(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((f"{prefix}{key}", text))
    return rows


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    good = isinstance(line, dict) and isinstance(line.get("step"), int)
    return line if good else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
