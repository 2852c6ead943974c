"""`avdata caption`: captions for the kept clips of a manifest.

Picture and sound are asked about apart. By default both captions are templates; with an endpoint
a pool of threads reads clips and asks. Answers are committed as they come, and a clip has captions
when both are there; one that was refused either is dropped by the policy's rule `uncaptioned`.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Discriminator

from avdata import config as configuration
from avdata import storage
from avdata.encoders.captioner import Answer, Captioner, Question
from avdata.encoders.endpoint import Endpoint
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError
from avdata.pipeline.caption_answers import AnswerRow, Answers
from avdata.pipeline.caption_text import Prompt, Role, cleaned, load_prompt
from avdata.pipeline.captions import TemplateCaptions, template_captions
from avdata.pipeline.manifest import CaptionRow, Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip_file import own_shape
from avdata.pipeline.record import Captions, Clip
from avdata.pipeline.selection import require_captionable
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead
from avdata.progress import Advance, progress

VERSION = 1
"""Raise when the same clip gives another question; all are then asked again."""
SILENCE = "silence"
BATCH = 64
"""Answers committed at once."""
Source = Annotated[TemplateCaptions | Endpoint, Discriminator("kind")]


@dataclass(frozen=True, slots=True)
class CaptionConfig:
    """Who captions picture and sound, and what it is given."""

    video: Source = field(default_factory=TemplateCaptions)
    audio: Source = field(default_factory=TemplateCaptions)
    video_prompt: Path | None = None
    """A file of text; None is the packaged prompt."""
    audio_prompt: Path | None = None
    frames: int = 8
    """Evenly over the clip."""
    longer_side: int = 448
    """Pixels."""
    sample_rate: int = 16_000
    threads: int = 8
    """Requests at once."""
    max_failures_in_a_row: int = 20
    """So many requests failed for a reason that may pass stop the run."""
    max_copies_gib: float = 16.0
    """Local copies of remote sources."""

    def __post_init__(self) -> None:
        for name in ("frames", "threads", "max_failures_in_a_row"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.longer_side < 32 or self.sample_rate < 8000:
            raise ValueError("longer_side must be 32 at least, sample_rate 8000 at least")

    def prompt(self, role: Role) -> Prompt:
        """Of one role."""
        return load_prompt(role, self.video_prompt if role == "video" else self.audio_prompt)

    def fingerprint(self, role: Role, who: Endpoint, ingested: str) -> str:
        """Of all that an answer depends on."""
        media = [self.frames, self.longer_side] if role == "video" else [self.sample_rate]
        prompt = self.prompt(role).digest
        return storage.digest_json([VERSION, role, ingested, who.identity(), prompt, media])


@dataclass(frozen=True, slots=True)
class CaptionCounts:
    """How a run ended."""

    captioned: int
    failed: dict[str, int]
    """Clips that got none, by reason."""
    asked: int
    """Answers that this run went for."""


def caption(root: Path, config: CaptionConfig | None = None) -> CaptionCounts:
    """Captions every kept clip, asking only what has not been answered.

    RunError when a captioner fails again and again; what it had answered is kept.
    """
    config, manifest = config or CaptionConfig(), Manifest(root)
    clips = require_captionable(manifest)
    video, asked_video = _captions(manifest, clips, "video", config.video, config)
    audio, asked_audio = _captions(manifest, clips, "audio", config.audio, config)
    about = _about(config)
    rows = [
        _row(clip.clip_id, {"video": seen, "audio": heard}, about)
        for clip, seen, heard in zip(clips, video, audio, strict=True)
    ]
    manifest.write_captions(rows)
    manifest.reassemble()
    failed = Counter(row.caption_failure for row in rows if row.caption_failure is not None)
    return CaptionCounts(len(rows) - failed.total(), dict(failed), asked_video + asked_audio)


def _about(config: CaptionConfig) -> tuple[str, str]:
    """Model and prompt digest that the captions name."""
    if isinstance(config.video, TemplateCaptions) and isinstance(config.audio, TemplateCaptions):
        return config.video.name, config.video.digest
    names = dict.fromkeys([config.video.name, config.audio.name])
    prompts = [_digest("video", config.video, config), _digest("audio", config.audio, config)]
    return " and ".join(names), storage.digest_json(prompts)


def _digest(role: Role, who: Source, config: CaptionConfig) -> str:
    return who.digest if isinstance(who, TemplateCaptions) else config.prompt(role).digest


def _row(clip_id: str, answers: dict[str, Answer], about: tuple[str, str]) -> CaptionRow:
    reasons = [f"{role}:{one.reason}" for role, one in answers.items() if one.text is None]
    video, audio = answers["video"].text, answers["audio"].text
    if video is None or audio is None:
        return CaptionRow(clip_id, None, reasons[0])
    return CaptionRow(clip_id, Captions(video, audio, *about))


def _captions(
    manifest: Manifest, clips: list[Clip], role: Role, who: Source, config: CaptionConfig
) -> tuple[list[Answer], int]:
    """One answer a clip, in their order, and how many questions this took."""
    if isinstance(who, TemplateCaptions):
        return [Answer(getattr(template_captions(clip), role)) for clip in clips], 0
    ingested = configuration.from_plain(IngestConfig, manifest.settings(), str(manifest.clips_file))
    store = Answers(manifest.root, config.fingerprint(role, who, ingested.fingerprint))
    asking = [clip for clip in clips if not (role == "audio" and _is_silent(clip))]
    before = store.read()
    todo = [clip for clip in asking if clip.clip_id not in before or before[clip.clip_id].may_pass]
    if todo:
        reader = _Reader(role, config, ingested, who.open())
        with progress(f"{role} captions", len(asking), len(asking) - len(todo)) as advance:
            _ask(reader, todo, store, advance)
    found, answers = store.read(), []
    for clip in clips:
        row = found.get(clip.clip_id)
        if role == "audio" and _is_silent(clip):
            answers.append(Answer(SILENCE))
        else:
            answers.append(Answer(row.text, row.reason) if row else Answer(None, "budget"))
    return answers, len(todo)


def _is_silent(clip: Clip) -> bool:
    return clip.audio is None or clip.labels.silent


@dataclass
class _Reader:
    """Reads a clip and asks about it; used by several threads."""

    role: Role
    config: CaptionConfig
    ingested: IngestConfig
    captioner: Captioner

    def __post_init__(self) -> None:
        remove_copies_of_the_dead()
        self.prompt = self.config.prompt(self.role).text
        self.copies = LocalCopies(self.config.max_copies_gib)

    def __call__(self, clip: Clip) -> AnswerRow:
        try:
            question = self._question(clip)
        except MediaError as error:
            return AnswerRow(clip.clip_id, None, f"media_{error.reason}", error.detail)
        answer = cleaned(self.captioner.ask(question))
        return AnswerRow(clip.clip_id, answer.text, answer.reason, answer.detail)

    def _question(self, clip: Clip) -> Question:
        ingested, config = self.ingested, self.config
        whole = ClipShape(ingested.num_frames, ingested.fps, sample_rate=config.sample_rate)
        seen = self.role == "video"
        shown = clip.media.height, clip.media.width
        shape = own_shape(shown, whole, config.longer_side if seen else 32)
        media = clip_media(clip, shape, self.copies)
        name = f"{clip.clip_id}-{self.role}"
        if not seen:
            sound = media.samples.mean(axis=0)
            return Question(name, self.prompt, None, sound, config.sample_rate)
        count = min(config.frames, len(media.frames))
        picked = np.linspace(0, len(media.frames) - 1, count).round().astype(int)
        return Question(name, self.prompt, media.frames[picked])


def _ask(reader: _Reader, clips: list[Clip], store: Answers, advance: Advance) -> None:
    """Commits answers as they come, those before an error too."""
    batch: list[AnswerRow] = []
    in_a_row, spent, config = 0, False, reader.config
    try:
        # What is under way when the budget ends has been paid for.
        wanted = itertools.takewhile(lambda _: not spent, clips)
        for row in _in_threads(reader, wanted, config.threads):
            spent = spent or row.reason == "budget"
            if row.reason == "budget":
                continue
            batch.append(row)
            advance()
            in_a_row = in_a_row + 1 if row.may_pass else 0
            if in_a_row == config.max_failures_in_a_row:
                raise RunError(
                    f"{reader.role} captions: {in_a_row} clips in a row failed, the last by "
                    f"{row.reason} ({row.detail}); see to the endpoint, then run it again to go on"
                )
            if len(batch) >= BATCH:
                store.write(batch)
                batch = []
    finally:
        reader.captioner.close()  # Nobody waits for a retry any more.
        if batch:
            store.write(batch)


def _in_threads(reader: _Reader, clips: Iterable[Clip], threads: int) -> Iterator[AnswerRow]:
    """Answers in whatever order they come; few clips wait at a time."""
    rest = iter(clips)
    with ThreadPoolExecutor(threads) as pool:
        running: set[Future[AnswerRow]] = set()
        try:
            while True:
                free = 2 * threads - len(running)
                running |= {pool.submit(reader, clip) for clip in itertools.islice(rest, free)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
