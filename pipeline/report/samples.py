"""What a run made: each sample with its captions and, where it is known, beside its true clip."""

import base64
from pathlib import Path

from markupsafe import Markup

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.media.stream import opened
from avdata.pipeline.report import charts, elements, units
from avdata.pipeline.report.run_folder import Run, read_object

MAX_VIDEOS = 12
"""A run."""
MAX_VIDEO_BYTES = 8_000_000
NUM_PICTURES = 6
HEIGHT = 96
SAMPLE_RATE = 22_050


def samples_of(run: Run) -> Markup:
    """Under a heading; says so where there are none."""
    files = sorted((run.root / "samples").glob("*.mp4"))
    title = elements.heading(f"Samples of {run.label}")
    if not files:
        return title + elements.note("No samples in this run's folder.")
    shown = [file for file in files if file.stat().st_size <= MAX_VIDEO_BYTES][-MAX_VIDEOS:]
    cards = elements.joined(map(_card, shown))
    parts = [title, Markup('<div class="gallery">{}</div>').format(cards)]
    left_out = [file.name for file in files if file not in shown]
    if left_out:
        limit = f"the last {MAX_VIDEOS} of at most {units.size(MAX_VIDEO_BYTES)} are shown"
        parts.append(elements.note(f"Not shown ({limit}): {', '.join(left_out)}"))
    return elements.joined(parts)


def _card(file: Path) -> Markup:
    facts = read_object(file.with_suffix(".json")) or {}
    true = _true(file, facts.get("true"))
    parts = [Markup("<h4>{}</h4>").format(file.stem)]
    if true is None:
        parts.append(_video(file, f"Sample {file.stem}"))
    else:
        both = _video(file, f"Sample {file.stem}") + _video(true, f"True clip of {file.stem}")
        parts += [
            _sheet("Sample", file),
            _sheet("True clip, as the encoders keep it", true),
            elements.folded("Play both", Markup('<div class="both">{}</div>').format(both)),
        ]
    return Markup('<article class="card">{}{}</article>').format(
        elements.joined(parts), _captions(facts.get("captions"))
    )


def _true(file: Path, name: object) -> Path | None:
    """The clip that a sample's JSON names, never outside the samples' folder."""
    if not isinstance(name, str):
        return None
    path = (file.parent / name).resolve()
    fits = path.is_file() and path.is_relative_to(file.parent.resolve())
    return path if fits and path.stat().st_size <= MAX_VIDEO_BYTES else None


def _sheet(title: str, file: Path) -> Markup:
    """Frames over all of the clip, and the sound under them."""
    line = Markup('<p class="when">{}</p>').format(title)
    try:
        shape = _shape(file)
        media = read_clip(file, 0.0, shape)
    except MediaError as error:
        return line + elements.note(f"{file.name} cannot be read: {error}")
    strip = elements.strip(media.frames, shape.fps, NUM_PICTURES)
    if not media.samples.any():
        return line + strip
    sound = media.samples.mean(axis=0).astype(float)
    wave = charts.Waveform(sound, SAMPLE_RATE, shape.shown_seconds, (), (), ())
    return line + strip + charts.waveform(wave)


def _shape(file: Path) -> ClipShape:
    """All frames of the file at their own rate, and small."""
    with opened(file, 1) as container:
        video = container.streams.video[0] if container.streams.video else None
        if video is None or not video.frames or not video.average_rate:
            raise MediaError("probe", "no_frames", "its container counts none")
        width = 2 * max(1, round(HEIGHT * video.width / max(1, video.height) / 2))
        return ClipShape(video.frames, round(video.average_rate), HEIGHT, width, SAMPLE_RATE)


def _video(file: Path, label: str) -> Markup:
    data = base64.b64encode(file.read_bytes()).decode()
    return Markup(
        '<video controls loop preload="metadata" aria-label="{}" '
        'src="data:video/mp4;base64,{}"></video>'
    ).format(label, data)


def _captions(captions: object) -> Markup:
    if isinstance(captions, dict):
        pairs = [(str(key), str(value)) for key, value in captions.items()]
    else:
        pairs = [("caption", str(captions))] if captions else []
    listed = elements.joined(Markup("<dt>{}</dt><dd>{}</dd>").format(*pair) for pair in pairs)
    shown = Markup('<dl class="captions">{}</dl>').format(listed)
    return shown + ("" if pairs else elements.note("No captions beside this sample."))
