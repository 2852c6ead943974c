"""One captioner asked about one thing of many clips, by workers.

Clips are read in child processes and asked about by threads; a worker commits answers as they come,
those before an error, too.
"""

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from avdata import config as configuration
from avdata.encoders.captioner import Captioner, Question
from avdata.encoders.device import usable
from avdata.encoders.endpoint import Endpoint
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError
from avdata.jobs.caption_config import Asked, CaptionConfig
from avdata.jobs.device import on_gpu
from avdata.jobs.engine import Engine, joined_ray, num_gpus, stream
from avdata.pipeline.caption_answers import MEDIA, AnswerRow, Answers
from avdata.pipeline.caption_text import Role, cleaned
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip_file import own_shape
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.decoders import Decoders
from avdata.pipeline.shards.failures import require_decoded
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead
from avdata.progress import progress

BATCH = 64
"""Answers committed at once."""
ROUNDS = 16
"""Clips of one item of work for each thread: the last ones are waited for by all."""


@dataclass
class AskAbout:
    """Clips of one item: read, asked about, committed. A worker opens its captioner once."""

    role: Role
    who: Asked
    config: CaptionConfig
    ingested: IngestConfig
    store: Answers

    def __post_init__(self) -> None:
        remove_copies_of_the_dead()
        config = self.config
        self.prompt = config.prompt(self.role).text
        self.copies = LocalCopies(config.max_copies_gib)
        self.decoders = Decoders(config.limits)
        self.captioner = _opened(self.who, config.device)
        self.in_a_row = 0

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        clips: list[Clip] = pickle.loads(item["clips"])
        batch: list[AnswerRow] = []
        answered, spent = 0, False
        failed: list[str] = []
        try:
            # What is under way when the budget ends has been paid for.
            wanted = itertools.takewhile(lambda _: not spent, clips)
            threads, close = self.config.threads, self.captioner.close
            for row in _in_threads(self._ask, wanted, threads, close):
                spent = spent or row.reason == "budget"
                if row.reason == "budget":
                    continue
                batch.append(row)
                answered += 1
                if row.is_fault:
                    failed.append(_worded(row))
                self._require_answers(row)
                if len(batch) >= BATCH:
                    self.store.write(batch)
                    batch = []
        finally:
            if batch:
                self.store.write(batch)
        return {"seen": answered, "failed": len(failed), "why": failed[:1], "spent": spent}

    def _ask(self, clip: Clip) -> AnswerRow:
        try:
            question = self._question(clip)
        except MediaError as error:
            return AnswerRow(clip.clip_id, None, f"{MEDIA}{error.reason}", error.detail)
        answer = cleaned(self.captioner.ask(question))
        return AnswerRow(clip.clip_id, answer.text, answer.reason, answer.detail)

    def _question(self, clip: Clip) -> Question:
        ingested, config = self.ingested, self.config
        whole = ClipShape(ingested.num_frames, ingested.fps, sample_rate=config.sample_rate)
        shown = clip.media.height, clip.media.width
        shape = own_shape(shown, whole, 32 if self.role == "audio" else config.longer_side)
        media = clip_media(clip, shape, self.copies, read=self.decoders.read)
        return Question(
            f"{clip.clip_id}-{self.role}",
            self.prompt,
            None if self.role == "audio" else media.evenly(config.frames),
            None if self.role == "video" else media.samples.mean(axis=0),
            config.sample_rate,
        )

    def _require_answers(self, row: AnswerRow) -> None:
        if row.reason is not None and row.reason.startswith(MEDIA):
            return  # Nobody was asked.
        self.in_a_row = self.in_a_row + 1 if row.is_fault else 0
        if self.in_a_row == self.config.max_failures_in_a_row:
            raise RunError(
                f"{self.role} captions: {self.in_a_row} clips in a row failed, the last by "
                f"{row.reason} ({row.detail}); see to what fails, then run it again with "
                "retry_failed=true to go on"
            )


@dataclass(frozen=True, slots=True)
class Asking:
    """One run of `avdata caption`; `held` keeps a Ray that was started for all its questions."""

    root: Path
    config: CaptionConfig
    engine: Engine
    held: ExitStack

    def about(self, clips: list[Clip], role: Role, who: Asked) -> tuple[dict[str, AnswerRow], int]:
        """What is known of these clips once those without a lasting answer were asked about, and
        how many these were.

        RunError when a captioner fails again and again, or more than `max_failed_share` of the
        clips could not be asked about; what was answered is kept.
        """
        ingest = ingested(Manifest(self.root))
        store = Answers(self.root, self.config.fingerprint(role, who, ingest.fingerprint))
        before = store.read()
        todo = [
            clip for clip in clips if _to_ask(before.get(clip.clip_id), self.config.retry_failed)
        ]
        if todo:
            work = partial(AskAbout, role, who, self.config, ingest, store)
            self._ask(work, todo, len(clips))
        found = store.read()
        rows = [found[clip.clip_id] for clip in clips if clip.clip_id in found]
        failed = [_worded(row) for row in rows if row.is_fault]
        self._require_asked(len(failed), len(rows), len(clips), failed[:1])
        return found, len(todo)

    def _ask(self, work: "partial[AskAbout]", todo: list[Clip], total: int) -> None:
        """Until all are asked about, or the budget is spent; stops early where too many fail."""
        role, who, *_ = work.args
        size = max(BATCH, ROUNDS * self.config.threads)
        parts = (todo[first : first + size] for first in range(0, len(todo), size))
        items = ({"clips": pickle.dumps(part)} for part in parts)
        engine = self.engine
        if isinstance(who, Endpoint) and who.max_requests is not None:
            # Ray begins workers anew, and each would begin to count.
            engine = replace(engine, inline=True)
        if not engine.inline:
            self.held.enter_context(joined_ray(engine))
        engine, gpu = _workers(who, self.config.device, engine)
        answers = stream(engine, work, items, on_gpu=gpu)
        seen, failed = total - len(todo), 0
        with progress(f"{role} captions", total, seen) as advance, closing(answers):
            for answer in answers:
                advance(by=answer["seen"])
                seen, failed = seen + answer["seen"], failed + answer["failed"]
                self._require_asked(failed, seen, total, answer["why"])
                if answer["spent"]:
                    break

    def _require_asked(self, failed: int, seen: int, total: int, why: list[str]) -> None:
        for one in why:
            require_decoded(self.root, failed, seen, total, self.config.max_failed_share, one)


def _to_ask(row: AnswerRow | None, retry_failed: bool) -> bool:
    return row is None or row.may_pass or (retry_failed and row.text is None)


def _worded(row: AnswerRow) -> str:
    return f"{row.reason}: {row.detail}"[:200]


def ingested(manifest: Manifest) -> IngestConfig:
    """The settings that the clips were cut with."""
    where = str(manifest.clips_file)
    return configuration.from_plain(IngestConfig, manifest.settings(), where)


def _workers(who: Asked, device: str, engine: Engine) -> tuple[Engine, bool]:
    """How many workers, and whether on GPUs.

    One where nothing else is said and there is no GPU: its threads keep an endpoint busy, and a
    model takes all cores.
    """
    gpu = False if isinstance(who, Endpoint) else on_gpu(device, engine)
    if gpu is None:
        gpu = num_gpus() > 0
    if not gpu and engine.workers is None:
        return replace(engine, workers=1), gpu
    return engine, gpu


def _opened(who: Asked, device: str) -> Captioner:
    return who.open() if isinstance(who, Endpoint) else who.open(usable(device))


def _in_threads(
    work: Callable[[Clip], AnswerRow],
    clips: Iterable[Clip],
    threads: int,
    give_up: Callable[[], None],
) -> Iterator[AnswerRow]:
    """Answers in whatever order they come; few clips wait at a time. `give_up` is called where one
    fails or no more are taken, before what is under way is waited for.
    """
    rest = iter(clips)
    with ThreadPoolExecutor(threads) as pool, ExitStack() as halted:
        halted.callback(pool.shutdown, wait=False, cancel_futures=True)
        halted.callback(give_up)  # First: nobody waits for a retry any more.
        running: set[Future[AnswerRow]] = set()
        while True:
            free = 2 * threads - len(running)
            running |= {pool.submit(work, clip) for clip in itertools.islice(rest, free)}
            if not running:
                halted.pop_all()
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                yield one.result()
