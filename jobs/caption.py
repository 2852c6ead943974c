"""`avdata caption`: captions for the kept clips of a manifest.

Picture and sound are asked about apart. By default both captions are templates; models, behind an
endpoint or in this process, are asked by workers. Answers are committed as they come, and a clip
has captions when both are there; one that was refused either is dropped by the policy's rule
`uncaptioned`. A joint caption comes on top where it is asked for.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from avdata import storage
from avdata.encoders.captioner import Answer
from avdata.jobs.ask import ask
from avdata.jobs.caption_config import CaptionConfig, Source
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

    RunError when a captioner fails again and again; what it had answered is kept.
    """
    config, manifest, engine = config or CaptionConfig(), Manifest(root), engine or Engine()
    clips = require_captionable(manifest)
    video, asked_video = _answers(root, clips, "video", config, engine)
    audio, asked_audio = _answers(root, clips, "audio", config, engine)
    joint, asked_joint = _joint(root, clips, config, engine)
    about = _about(config)
    rows = [
        _row(clip.clip_id, seen, heard, about, both)
        for clip, seen, heard, both in zip(clips, video, audio, joint, strict=True)
    ]
    manifest.write_captions(rows)
    manifest.reassemble()
    failed = Counter(row.caption_failure for row in rows if row.caption_failure is not None)
    captioned = len(rows) - failed.total()
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
    root: Path, clips: list[Clip], role: Role, config: CaptionConfig, engine: Engine
) -> tuple[list[Answer], int]:
    """One answer a clip, in their order, and how many questions this took."""
    who = config.video if role == "video" else config.audio
    if isinstance(who, TemplateCaptions):
        return [Answer(getattr(template_captions(clip), role)) for clip in clips], 0
    silent = set() if role == "video" else {clip.clip_id for clip in clips if _is_silent(clip)}
    asking = [clip for clip in clips if clip.clip_id not in silent]
    found, asked = ask(root, asking, role, who, config, engine)
    given = [Answer(SILENCE) if one.clip_id in silent else _answer(one, found) for one in clips]
    return given, asked


def _joint(
    root: Path, clips: list[Clip], config: CaptionConfig, engine: Engine
) -> tuple[list[JointCaption | None], int]:
    """As `_answers`; None where there is nothing to hear, or nobody to ask."""
    if config.joint is None:
        return [None] * len(clips), 0
    asking = [clip for clip in clips if not _is_silent(clip)]
    found, asked = ask(root, asking, "joint", config.joint, config, engine)
    about = config.joint.name, config.prompt("joint").digest
    captions: list[JointCaption | None] = []
    for clip in clips:
        one = _answer(clip, found)
        silent = _is_silent(clip)
        captions.append(None if silent else JointCaption(one.text, one.reason, *about))
    return captions, asked


def _answer(clip: Clip, found: dict[str, AnswerRow]) -> Answer:
    row = found.get(clip.clip_id)
    return Answer(row.text, row.reason) if row else Answer(None, "budget")


def _is_silent(clip: Clip) -> bool:
    return clip.audio is None or clip.labels.silent
