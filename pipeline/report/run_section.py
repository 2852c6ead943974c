"""Training runs side by side: losses raw and smoothed, the pace, what they were, what they made."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from avdata.pipeline.report import curves, elements, units
from avdata.pipeline.report.page import Section
from avdata.pipeline.report.run_folder import Run, flattened, read_object, read_run

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
MAX_VIDEOS = 12
"""A run."""
MAX_VIDEO_BYTES = 8_000_000


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
        *(_samples(run) for run in runs),
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


def _samples(run: Run) -> Markup:
    files = sorted((run.root / "samples").glob("*.mp4"))
    title = elements.heading(f"Samples of {run.label}")
    if not files:
        return title + elements.note("No samples in this run's folder.")
    shown = [file for file in files if file.stat().st_size <= MAX_VIDEO_BYTES][-MAX_VIDEOS:]
    cards = elements.joined(map(_video, shown))
    parts = [title, Markup('<div class="gallery">{}</div>').format(cards)]
    left_out = [file.name for file in files if file not in shown]
    if left_out:
        limit = f"the last {MAX_VIDEOS} of at most {units.size(MAX_VIDEO_BYTES)} are shown"
        parts.append(elements.note(f"Not shown ({limit}): {', '.join(left_out)}"))
    return elements.joined(parts)


def _video(file: Path) -> Markup:
    data = base64.b64encode(file.read_bytes()).decode()
    facts = read_object(file.with_suffix(".json")) or {}
    captions = facts.get("captions")
    if isinstance(captions, dict):
        pairs = [(str(key), str(value)) for key, value in captions.items()]
    else:
        pairs = [("caption", str(captions))] if captions else []
    listed = elements.joined(Markup("<dt>{}</dt><dd>{}</dd>").format(*pair) for pair in pairs)
    return Markup(
        '<article class="card"><video controls loop preload="metadata" aria-label="{}" '
        'src="data:video/mp4;base64,{}"></video><h4>{}</h4><dl class="captions">{}</dl>{}</article>'
    ).format(
        f"Sample {file.stem}",
        data,
        file.stem,
        listed,
        "" if pairs else elements.note("No captions beside this sample."),
    )


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
