"""`avdata caption`: captions for the kept clips of a manifest.

Picture and sound are asked about apart. By default both captions are templates; models, behind an
endpoint or in this process, are asked by workers. Answers are committed as they come, and a clip
has captions when both are there; one that was refused either is dropped by the policy's rule
`uncaptioned`. A joint caption comes on top where it is asked for.
"""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from avdata import storage
from avdata.encoders.captioner import Answer
from avdata.errors import YieldCollapsed
from avdata.jobs.ask import Asking
from avdata.jobs.caption_config import Asked, CaptionConfig, Source
from avdata.jobs.engine import Engine
from avdata.pipeline.caption_answers import AnswerRow
from avdata.pipeline.caption_text import Role
from avdata.pipeline.captions import TemplateCaptions, template_captions
from avdata.pipeline.manifest import CaptionRow, Manifest
from avdata.pipeline.record import Captions, Clip, JointCaption
from avdata.pipeline.selection import require_captionable

SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class CaptionCounts:
    """How a run ended."""

    captioned: int
    failed: dict[str, int]
    """Clips that got none, by reason; those without a joint caption have the others."""
    asked: int
    """Answers that this run went for."""


def caption(
    root: Path, config: CaptionConfig | None = None, engine: Engine | None = None
) -> CaptionCounts:
    """Captions every kept clip, asking only what has not been answered.

    RunError when a captioner fails again and again or many clips cannot be read, YieldCollapsed
    when no clip got captions; what was answered is kept.
    """
    with Manifest(root).alone():
        return _caption(root, config or CaptionConfig(), engine or Engine())


def _caption(root: Path, config: CaptionConfig, engine: Engine) -> CaptionCounts:
    manifest = Manifest(root)
    clips = require_captionable(manifest)
    with ExitStack() as held:
        asking = Asking(root, config, engine, held)
        video, asked_video = _answers(asking, clips, "video", config.video)
        audio, asked_audio = _answers(asking, clips, "audio", config.audio)
        joint, asked_joint = _joint(asking, clips)
    about = _about(config)
    rows = [
        _row(clip.clip_id, seen, heard, about, both)
        for clip, seen, heard, both in zip(clips, video, audio, joint, strict=True)
    ]
    manifest.write_captions(rows)
    manifest.reassemble()
    failed = Counter(row.caption_failure for row in rows if row.caption_failure is not None)
    captioned = len(rows) - failed.total()
    if not captioned and not any(reason.endswith(":budget") for reason in failed):
        told = ", ".join(f"{reason} {count}" for reason, count in failed.most_common(3))
        raise YieldCollapsed(
            f"{root}: none of {len(rows)} clips got captions ({told}); see to the models and their "
            "prompts, then caption again with retry_failed=true"
        )
    failed.update(f"joint:{one.reason}" for one in joint if one and one.reason)
    return CaptionCounts(captioned, dict(failed), asked_video + asked_audio + asked_joint)


def _about(config: CaptionConfig) -> tuple[str, str]:
    """Model and prompt digest that the captions name."""
    if isinstance(config.video, TemplateCaptions) and isinstance(config.audio, TemplateCaptions):
        return config.video.name, config.video.digest
    names = dict.fromkeys([config.video.name, config.audio.name])
    prompts = [_digest("video", config.video, config), _digest("audio", config.audio, config)]
    return " and ".join(names), storage.digest_json(prompts)


def _digest(role: Role, who: Source, config: CaptionConfig) -> str:
    return who.digest if isinstance(who, TemplateCaptions) else config.prompt(role).digest


def _row(
    clip_id: str, seen: Answer, heard: Answer, about: tuple[str, str], joint: JointCaption | None
) -> CaptionRow:
    if seen.text is None or heard.text is None:
        reason = f"audio:{heard.reason}" if seen.reason is None else f"video:{seen.reason}"
        return CaptionRow(clip_id, None, reason)
    return CaptionRow(clip_id, Captions(seen.text, heard.text, *about, joint))


def _answers(
    asking: Asking, clips: list[Clip], role: Role, who: TemplateCaptions | Asked
) -> tuple[list[Answer], int]:
    """One answer a clip, in their order, and how many questions this took."""
    if isinstance(who, TemplateCaptions):
        return [Answer(getattr(template_captions(clip), role)) for clip in clips], 0
    silent = [role == "audio" and _is_silent(clip) for clip in clips]
    wanted = [clip for clip, nothing in zip(clips, silent, strict=True) if not nothing]
    found, asked = asking.about(wanted, role, who)
    given = [
        Answer(SILENCE) if nothing else _answer(clip, found)
        for clip, nothing in zip(clips, silent, strict=True)
    ]
    return given, asked


def _joint(asking: Asking, clips: list[Clip]) -> tuple[list[JointCaption | None], int]:
    """As `_answers`; None where there is nothing to hear, or nobody to ask."""
    who = asking.config.joint
    if who is None:
        return [None] * len(clips), 0
    found, asked = asking.about([one for one in clips if not _is_silent(one)], "joint", who)
    about = who.name, asking.config.prompt("joint").digest
    answers = [None if _is_silent(clip) else _answer(clip, found) for clip in clips]
    return [JointCaption(one.text, one.reason, *about) if one else None for one in answers], asked


def _answer(clip: Clip, found: dict[str, AnswerRow]) -> Answer:
    row = found.get(clip.clip_id)
    return Answer(row.text, row.reason) if row else Answer(None, "budget")


def _is_silent(clip: Clip) -> bool:
    return clip.audio is None or clip.labels.silent
