"""Template captions: sentences made of labels and measurements, one for what is seen, one for what
is heard. They need no model and claim nothing that was not measured; `model` says `template`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from avdata import storage
from avdata.pipeline.record import Captions, Clip

VERSION = 1
MOTION = {
    "static": "nothing moves",
    "small": "something moves a little",
    "large": "something moves a lot",
}


@dataclass(frozen=True, slots=True)
class TemplateCaptions:
    """Configuration of the captioner that asks nobody."""

    kind: Literal["template"] = "template"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @property
    def name(self) -> str:
        """What made a caption."""
        return "template"

    @property
    def digest(self) -> str:
        """In the place of a prompt's."""
        return storage.digest_json(["template captions", VERSION])


def template_captions(clip: Clip) -> Captions:
    """Two captions, a pure function of the clip's labels and measurements."""
    return Captions(
        video=_seen(clip),
        audio=_heard(clip),
        model=TemplateCaptions().name,
        prompt_digest=TemplateCaptions().digest,
    )


def _seen(clip: Clip) -> str:
    light = _scale(clip.technical.luma_mean, ((0.15, "dark"), (0.6, "clear"), (1.0, "bright")))
    camera = "moving" if clip.motion.camera_speed > 0.05 else "still"
    parts = [f"a {light} picture, {camera} camera, {MOTION[clip.labels.motion]}"]
    if clip.events:
        parts.append(f"{_count(len(clip.events), 'impact')} in view")
    return ", ".join(parts)


def _heard(clip: Clip) -> str:
    if clip.audio is None or clip.labels.silent:
        return "silence"
    loudness = _scale(clip.audio.rms_dbfs, ((-40, "quiet"), (-22, "clear"), (0, "loud")))
    hits = len(clip.audio.onsets_s)
    if hits == 0:
        return f"{loudness} steady sound"
    rate = "sparse" if hits <= 3 else "frequent"
    kind = "hits" if clip.events else "sounds with sudden starts"
    return f"{loudness} sound, {rate} {kind}, {_count(hits, 'onset')}"


def _scale(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    return next((word for limit, word in steps if value <= limit), steps[-1][1])


def _count(number: int, noun: str) -> str:
    words = ("no", "one", "two", "three", "four", "five")
    many = words[number] if number < len(words) else "many"
    return f"{many} {noun}" + ("" if number == 1 else "s")
