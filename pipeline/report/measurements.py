"""The manifest's measurements as pictures: how they are spread, and what a threshold would cost."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from avdata.pipeline.conditions import conditions
from avdata.pipeline.policy import Policy
from avdata.pipeline.report import charts, curves, elements, units

NUM_THRESHOLDS = 200


@dataclass(frozen=True, slots=True)
class Measurement:
    """A column of the manifest and how to speak of it."""

    field: str
    title: str
    unit: str


MEASUREMENTS = (
    Measurement("technical.luma_mean", "Brightness", "mean luma, 0 to 1"),
    Measurement("technical.luma_std", "Contrast", "spread of luma within a frame"),
    Measurement("technical.frozen_share", "Frozen", "share of the time"),
    Measurement("motion.peak", "Peak motion", "frame heights per second"),
    Measurement("motion.moving_share", "Moving area", "share of the picture"),
    Measurement("motion.camera_speed", "Camera motion", "frame heights per second"),
    Measurement("audio.rms_dbfs", "Loudness", "dBFS"),
    Measurement("audio.silence_share", "Silence", "share of the time"),
)
LOWER_LIMITS = ("motion.peak", "audio.rms_dbfs", "technical.luma_mean")
"""Measurements of which too little is a reason to drop a clip."""


def histograms(clips: pa.Table, policy: Policy) -> Markup:
    """One a measurement, with the thresholds that the policy sets on it."""
    kept = pc.equal(clips["status"], "keep").to_numpy()
    figures = [_histogram(one, clips, kept, policy) for one in MEASUREMENTS]
    lag, of_kept = _event_lags(clips)
    if len(lag):
        picture = charts.histogram(lag[of_kept], lag[~of_kept], "ms", y_label="events")
        text = f"of {units.plural(len(lag), 'contact event')}; positive: the sound is late"
        figures.append(elements.figure(picture, "Sound lag", text))
    keys = [("kept", "kept"), ("dropped", "dropped"), ("accent", "a threshold of the policy")]
    return elements.joined(
        [elements.heading("Measurements"), elements.legend(keys), elements.charts(figures)]
    )


def retained_hours(clips: pa.Table) -> Markup:
    """Kept time as a function of one more lower limit."""
    kept = clips.filter(pc.equal(clips["status"], "keep"))
    figures = []
    for one in (one for one in MEASUREMENTS if one.field in LOWER_LIMITS):
        values = _values(kept, one.field)
        known = np.isfinite(values)
        if len(set(values[known])) < 2:
            continue
        lasting = kept["end_s"].to_numpy() - kept["start_s"].to_numpy()
        scale, unit = _time_unit(float(lasting.sum()))
        limits = np.linspace(values[known].min(), values[known].max(), NUM_THRESHOLDS)
        order = np.argsort(values[known], kind="stable")
        lost = np.concatenate([[0.0], np.cumsum(lasting[known][order])])
        below = np.searchsorted(values[known][order], limits, side="left")
        left = (lasting.sum() - lost[below]) / scale
        line = curves.Line("kept", limits, left)
        label = f"{one.field} at least"
        picture = curves.line_chart([line], label, f"{unit} kept", from_zero=True)
        figures.append(elements.figure(picture, one.title, one.unit))
    if not figures:
        return Markup("")
    text = (
        "What would be left of the kept clips if the policy asked for at least this much. "
        "A clip without the measurement stays."
    )
    return elements.joined(
        [
            elements.heading("What a stricter threshold would leave"),
            elements.note(text),
            elements.charts(figures),
        ]
    )


def _histogram(
    one: Measurement,
    clips: pa.Table,
    kept: np.ndarray[tuple[int], np.dtype[np.bool_]],
    policy: Policy,
) -> Markup:
    values = _values(clips, one.field)
    known = int(np.isfinite(values).sum())
    if not known:
        return elements.figure(elements.note("Measured in no clip."), one.title)
    picture = charts.histogram(values[kept], values[~kept], one.unit, _limits(one.field, policy))
    missing = len(values) - known
    text = f"not measured in {units.plural(missing, 'clip')}" if missing else ""
    return elements.figure(picture, one.title, text)


def _values(clips: pa.Table, field: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """NaN where it was not measured."""
    head, *rest = field.split(".")
    return np.asarray(pc.struct_field(clips[head], rest).to_numpy(), float)


def _limits(field: str, policy: Policy) -> list[float]:
    """Numbers that the policy's conditions compare this field with."""
    asked = (one for text in policy.rules.values() for one in conditions(text))
    return [
        float(one.value)
        for one in asked
        if one.column == field and isinstance(one.value, (int, float))
    ]


def _event_lags(
    clips: pa.Table,
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.bool_]]
]:
    """Lag of every contact event, and whether its clip is kept."""
    events = clips["events"].combine_chunks()
    lag = pc.struct_field(pc.list_flatten(events), "lag_ms")
    kept = pc.equal(clips["status"], "keep").combine_chunks()
    of_kept = kept.take(pc.list_parent_indices(events))
    return (
        np.asarray(lag.to_numpy(zero_copy_only=False), float),
        np.asarray(of_kept.to_numpy(zero_copy_only=False), bool),
    )


def _time_unit(seconds: float) -> tuple[float, str]:
    return (
        (3600.0, "hours")
        if seconds >= 3600
        else (60.0, "minutes")
        if seconds >= 60
        else (1.0, "seconds")
    )
