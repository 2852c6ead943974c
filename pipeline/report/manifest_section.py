"""A manifest in numbers: what came in, what is kept, what dropped the rest, what failed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from avdata.errors import ConfigError
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.policy import Policy, load_policy
from avdata.pipeline.record import Quarantined
from avdata.pipeline.report import charts, elements, units
from avdata.pipeline.report.measurements import histograms, retained_hours
from avdata.pipeline.report.page import Section

MAX_QUARANTINED = 500
"""Rows shown: a page must open even where ten thousand files failed."""


def manifest_section(root: Path, anchor: str) -> Section:
    """UsageError where there is no manifest."""
    manifest = Manifest(root)
    clips = manifest.table()
    parts = [elements.place(root)]
    failed: list[Quarantined] | None = None
    if manifest.quarantine_file.exists():
        failed = manifest.quarantined()
    parts += [_overview(clips, failed)]
    if len(clips):
        policy, trouble = _policy(root)
        parts += [_funnel(clips, policy, trouble), _labels(clips)]
        parts += [histograms(clips, policy), retained_hours(clips)]
    else:
        parts += [elements.note("No source gave a clip, so there is nothing to measure.")]
    parts += [_quarantine(failed)]
    return Section("Manifest", elements.joined(parts), anchor)


def _overview(clips: pa.Table, failed: list[Quarantined] | None) -> Markup:
    lasting = _seconds(clips)
    kept = _kept(clips)
    sources = pc.count_distinct(pc.struct_field(clips["source"], "uri")).as_py()
    contact = pc.struct_field(clips["labels"], "contact").to_numpy().astype(bool)
    gave_none = "quarantine table missing" if failed is None else f"{len(failed):,} quarantined"
    return elements.tiles(
        [
            ("Sources with clips", f"{sources:,}", gave_none),
            ("Clips in", f"{len(clips):,}", units.duration(lasting.sum())),
            (
                "Clips kept",
                f"{int(kept.sum()):,}",
                f"{units.duration(lasting[kept].sum())}, "
                f"{units.share(kept.sum(), len(clips))} of clips",
            ),
            (
                "Kept with contact",
                f"{int((kept & contact).sum()):,}",
                units.duration(lasting[kept & contact].sum()),
            ),
        ]
    )


def _funnel(clips: pa.Table, policy: Policy, trouble: str) -> Markup:
    """The rules one after another as a picture, each by itself as a table."""
    reasons: list[list[str]] = clips["reasons"].to_pylist()
    lasting = _seconds(clips)
    every = Counter(name for row in reasons for name in row)
    first = Counter(row[0] for row in reasons if row)
    only = Counter(row[0] for row in reasons if len(row) == 1)
    names = [*policy.rules, *sorted(set(every) - set(policy.rules))]
    steps, left = [charts.Step("clips in", len(clips))], len(clips)
    for name in names:
        left -= first[name]
        steps.append(charts.Step(name, left, first[name]))
    rows: list[list[elements.Cell]] = [
        [
            name,
            policy.rules.get(name, ""),
            every[name],
            units.share(every[name], len(clips)),
            only[name],
            units.duration(float(lasting[[name in row for row in reasons]].sum())),
        ]
        for name in sorted(names, key=lambda name: -every[name])
    ]
    head = ["Reason", "Condition", "Clips dropped", "Of all", "By it alone", "Time dropped"]
    picture = elements.figure(
        charts.funnel(steps),
        "Clips left after each rule",
        f"Policy “{policy.name}”, rules in its order; a clip counts where it first falls.",
        wide=True,
    )
    return elements.joined(
        [
            elements.heading("What dropped clips"),
            *([elements.note(trouble)] if trouble else []),
            picture,
            elements.table(head, rows, "Drop reasons", num_text=2),
            elements.note("A clip may have several reasons, so the rows can add up to more."),
        ]
    )


def _labels(clips: pa.Table) -> Markup:
    """Motion labels and contacts, in and kept."""
    kept, lasting = _kept(clips), _seconds(clips)
    motion = np.array(pc.struct_field(clips["labels"], "motion").to_pylist(), dtype=object)
    contact = pc.struct_field(clips["labels"], "contact").to_numpy().astype(bool)
    known = ["static", "small", "large"]
    masks = {name: motion == name for name in [*known, *sorted(set(motion) - set(known))]} | {
        "all": np.full(len(clips), True)
    }
    rows: list[list[elements.Cell]] = [
        [
            name,
            int(mask.sum()),
            int((mask & kept).sum()),
            units.duration(lasting[mask & kept].sum()),
            int((mask & contact).sum()),
            int((mask & contact & kept).sum()),
        ]
        for name, mask in masks.items()
    ]
    head = ["Motion", "Clips in", "Kept", "Time kept", "With contact", "Kept with contact"]
    events = sum(pc.list_value_length(clips["events"]).to_pylist())
    return elements.joined(
        [
            elements.heading("Motion and contact"),
            elements.table(head, rows, "Motion and contact labels"),
            elements.note(f"{units.plural(events, 'contact event')} in all clips together."),
        ]
    )


def _quarantine(failed: list[Quarantined] | None) -> Markup:
    title = elements.heading("Quarantine")
    if failed is None:
        return title + elements.note("quarantine.parquet is missing; run `avdata ingest` again.")
    if not failed:
        return title + elements.note("Every source gave at least one clip.")
    counts = Counter(one.reason for one in failed)
    order = sorted(failed, key=lambda one: (-counts[one.reason], one.reason, one.uri))
    rows: list[list[elements.Cell]] = [
        [
            Path(one.uri).name,
            one.reason,
            one.stage,
            one.detail,
            one.uri.rpartition("/")[0],
            units.size(one.size_bytes) if one.size_bytes is not None else "",
            one.attempts,
        ]
        for one in order[:MAX_QUARANTINED]
    ]
    said = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
    summary = f"{units.plural(len(failed), 'source')} gave no clip: {said}."
    if len(failed) > MAX_QUARANTINED:
        summary += f" The first {MAX_QUARANTINED} are listed; all are in quarantine.parquet."
    head = ["File", "Reason", "Stage", "Detail", "Folder", "Size", "Attempts"]
    listed = elements.table(head, rows, "Quarantined files", num_text=5)
    return elements.joined([title, elements.note(summary), listed])


def _policy(root: Path) -> tuple[Policy, str]:
    """The policy in force, and what is wrong where it cannot be read."""
    try:
        return load_policy(root / "policy.yaml"), ""
    except ConfigError as error:
        return Policy({}), f"The policy's conditions cannot be shown: {error}"


def _kept(clips: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(pc.equal(clips["status"], "keep").to_numpy(), bool)


def _seconds(clips: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(clips["end_s"].to_numpy() - clips["start_s"].to_numpy(), float)
