"""Training runs side by side: losses raw and smoothed, the pace, what they were, what they made."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from avdata.pipeline.report import curves, elements
from avdata.pipeline.report.page import Section
from avdata.pipeline.report.run_folder import Run, flattened, read_object, read_run
from avdata.pipeline.report.samples import samples_of

LOSSES = (
    ("loss_video", "Video loss", True),
    ("loss_audio", "Audio loss", True),
    ("val_loss_video", "Video loss, validation", False),
    ("val_loss_audio", "Audio loss, validation", False),
)
PACE = (
    ("learning_rate", "Learning rate", ""),
    ("samples_per_second", "Samples per second", ""),
    ("data_wait_share", "Waiting for data", "share of the time"),
)
WINDOW_SHARE = 0.04
"""Of a run's logged steps: how many one smoothed value is the mean of."""
LAST_SHARE = 0.1


def run_section(roots: Sequence[Path], anchor: str) -> Section:
    """All runs in one section, so that they share their charts."""
    labels = _labels(roots)
    runs = [read_run(root, label) for root, label in zip(roots, labels, strict=True)]
    troubles = [f"{run.label}: {trouble}" for run in runs for trouble in run.troubles]
    parts = [
        elements.place(*roots),
        *([elements.note(f"{'; '.join(troubles)}.")] if troubles else []),
        _losses(runs),
        _summary(runs),
        _pace(runs),
        *(samples_of(run) for run in runs),
        elements.heading("Configuration"),
        *(_configuration(run) for run in runs),
    ]
    return Section("Training", elements.joined(parts), anchor)


def _losses(runs: Sequence[Run]) -> Markup:
    figures = []
    for key, title, smooth in LOSSES:
        lines = _lines(runs, key, smooth)
        if lines:
            text = "thin: each logged step; thick: smoothed" if smooth else "as logged"
            picture = curves.line_chart(lines, "step", title.lower(), curves.WIDE)
            figures.append(elements.figure(picture, title, text, wide=True))
    how = (
        f"A smoothed value is the mean of the {100 * WINDOW_SHARE:.0f} % of a run's logged steps "
        "around it, at least three; near the ends of fewer."
    )
    return elements.joined([elements.heading("Losses"), *figures, elements.note(how)])


def _pace(runs: Sequence[Run]) -> Markup:
    figures = []
    for key, title, text in PACE:
        lines = _lines(runs, key, key != "learning_rate")
        if lines:
            picture = curves.line_chart(lines, "step", title.lower(), curves.MEDIUM)
            figures.append(elements.figure(picture, title, text))
    if not figures:
        return Markup("")
    return elements.heading("Pace") + elements.charts(figures, wide=True)


def _lines(runs: Sequence[Run], key: str, smooth: bool) -> list[curves.Line]:
    """One a run; a run without the key keeps its place, so that its colour stays the same."""
    lines = []
    for run in runs:
        x, y = run.series(key)
        window = max(3, round(WINDOW_SHARE * len(y)))
        lines.append(
            curves.Line(run.label, x, y, curves.smoothed(y, window) if smooth and len(y) else None)
        )
    return lines if any(np.isfinite(np.asarray(line.y)).any() for line in lines) else []


def _summary(runs: Sequence[Run]) -> Markup:
    """First, last and late losses, exact where the charts are not."""
    rows: list[list[elements.Cell]] = []
    for run in runs:
        for key in ("loss", *(key for key, _, _ in LOSSES)):
            steps, values = run.series(key)
            known = np.isfinite(values)
            if not known.any():
                continue
            steps, values = steps[known], values[known]
            late = values[-max(1, round(LAST_SHARE * len(values))) :]
            numbers = [values[0], values[-1], late.mean(), values.min()]
            rows.append(
                [
                    run.label,
                    key,
                    int(steps[-1]),
                    len(values),
                    *(f"{number:.4f}" for number in numbers),
                ]
            )
    if not rows:
        return Markup("")
    head = ["Run", "Loss", "Last step", "Logged", "First", "Last", "Mean of last 10 %", "Least"]
    return elements.table(head, rows, "Losses of each run", num_text=2)


def _configuration(run: Run) -> Markup:
    plain = read_object(run.root / "run.json")
    if plain is None:
        return elements.note(f"{run.label}: no readable run.json in its folder.")
    listed = elements.table(["Setting", "Value"], flattened(plain), f"Settings of {run.label}", 2)
    return elements.folded(f"Settings of {run.label}", listed)


def _labels(roots: Sequence[Path]) -> list[str]:
    """The folder's name, or as much of the path as tells the runs apart."""
    names = [_printable(root.resolve().name) for root in roots]
    if len(set(names)) == len(names):
        return names
    shared = os.path.commonpath([root.resolve() for root in roots])
    return [_printable(str(root.resolve().relative_to(shared))) for root in roots]


def _printable(name: str) -> str:
    """A file name need not be valid Unicode; a label in a chart must."""
    return os.fsencode(name).decode(errors="replace")
