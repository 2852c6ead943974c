"""A few clips to look at and judge: frames, sound with its marks, captions, labels, reasons."""

from pathlib import Path

import pyarrow as pa
from markupsafe import Markup

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.pipeline.arrow import from_table
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.record import Clip
from avdata.pipeline.report import charts, elements
from avdata.pipeline.report.page import Section

NUM_CLIPS = 12
NUM_PICTURES = 4
HEIGHT = 108
FPS = 16
SAMPLE_RATE = 22_050
LOOKED_AT = ("status", "labels", "reasons", "clip_id", "source")


def gallery_section(root: Path, anchor: str) -> Section:
    """Reads the sources again; one that has gone since is said so on its card."""
    clips = chosen(Manifest(root).table())
    keys = [
        ("ink", "onset of a sound (tick)"),
        ("series-1", "contact, where it is seen (dashed)"),
        ("accent", "contact, where it is heard"),
    ]
    text = "Some with contact, some with large motion, some dropped; always the same ones."
    cards = elements.joined(_card(clip) for clip in clips)
    body = [
        elements.place(root),
        elements.note(text if clips else "There are no clips."),
        *([elements.legend(keys)] if clips else []),
        Markup('<div class="gallery">{}</div>').format(cards),
    ]
    return Section("Clips", elements.joined(body), anchor)


def chosen(clips: pa.Table) -> list[Clip]:
    """At most NUM_CLIPS, a third of each kind where there are so many, few of one source.

    Clip ids are digests, so their order mixes sources and is the same on every machine.
    """
    rows = clips.select(LOOKED_AT).to_pylist()
    order = sorted(range(len(rows)), key=lambda at: rows[at]["clip_id"])
    seen: dict[tuple[str, ...], int] = {}
    turns = {}
    for at in order:
        # The first of its source (or of its reasons) comes before the second of any.
        row = rows[at]
        key = (_kind(row), *(row["reasons"] or [row["source"]["uri"]]))
        turns[at] = seen[key] = seen.get(key, 0) + 1
    order.sort(key=lambda at: turns[at])
    picked: list[int] = []
    for kind in ("contact", "large", "dropped"):
        picked += [at for at in order if _kind(rows[at]) == kind][: NUM_CLIPS // 3]
    picked += [at for at in order if at not in picked][: NUM_CLIPS - len(picked)]
    return from_table(Clip, clips.take(pa.array(picked, pa.int64())))


def _kind(row: dict[str, object]) -> str:
    labels = row["labels"]
    assert isinstance(labels, dict)
    if row["status"] == "drop":
        return "dropped"
    return "contact" if labels["contact"] else str(labels["motion"])


def _card(clip: Clip) -> Markup:
    return Markup(
        '<article class="card"><h4>{}</h4><p class="when">{:.2f} to {:.2f} s · {}</p>'
        "<p>{}</p>{}{}</article>"
    ).format(
        Path(clip.source.uri).name,
        clip.start_s,
        clip.end_s,
        f"{clip.media.width} x {clip.media.height}, {clip.media.fps:.4g} frames/s",
        _badges(clip),
        _media(clip),
        _captions(clip),
    )


def _badges(clip: Clip) -> Markup:
    dropped = [elements.badge(f"dropped: {reason}", "drop") for reason in clip.reasons]
    labels = [f"motion {clip.labels.motion}"]
    labels += ["contact"] if clip.labels.contact else []
    labels += ["silent"] if clip.labels.silent else []
    status = dropped or [elements.badge({"keep": "kept"}.get(clip.status, clip.status), "keep")]
    return elements.joined([*status, *map(elements.badge, [*labels, *clip.media.flags])])


def _captions(clip: Clip) -> Markup:
    if clip.captions is None:
        return elements.note("No captions.")
    pairs = [("Seen", clip.captions.video), ("Heard", clip.captions.audio)]
    if clip.captions.joint is not None and clip.captions.joint.text is not None:
        pairs.append(("Both", clip.captions.joint.text))
    listed = elements.joined(Markup("<dt>{}</dt><dd>{}</dd>").format(*pair) for pair in pairs)
    return Markup('<dl class="captions">{}</dl>').format(listed)


def _media(clip: Clip) -> Markup:
    """Pictures and waveform, or words where there is nothing to show."""
    paths = [path for path in map(Path, clip.source.uris) if path.is_file()]
    if not paths:
        return elements.note("The source is no longer where it was at ingest.")
    try:
        media = read_clip(paths[0], clip.in_file_s, _shape(clip))
    except MediaError as error:
        return elements.note(f"The source cannot be read any more: {error}")
    strip = elements.strip(media.frames, FPS, NUM_PICTURES)
    if clip.audio is None:
        return strip + elements.note("The source has no sound.")
    wave = charts.Waveform(
        samples=media.samples.mean(axis=0).astype(float),
        sample_rate=SAMPLE_RATE,
        seconds=clip.end_s - clip.start_s,
        onsets_s=clip.audio.onsets_s,
        seen_s=[event.t_video for event in clip.events],
        heard_s=[event.t_audio for event in clip.events],
    )
    return strip + charts.waveform(wave)


def _shape(clip: Clip) -> ClipShape:
    """Small, in the picture's own proportions, as long as the clip."""
    width = HEIGHT * clip.media.width / max(1, clip.media.height)
    return ClipShape(
        num_frames=max(NUM_PICTURES, round((clip.end_s - clip.start_s) * FPS)),
        fps=FPS,
        height=HEIGHT,
        width=2 * round(min(max(width, HEIGHT / 2), HEIGHT * 2.4) / 2),
        sample_rate=SAMPLE_RATE,
    )
