"""The training loop: global batches, one optimizer step each, whatever it is that is trained.

It can be stopped at any step and goes on from the newest checkpoint: to the bit with as many
processes, with the same batches and noise with others. It knows a `Task`, no audio and no video.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal

from avdata import storage
from avdata.errors import RunError
from avdata.trainer import throughput
from avdata.trainer.optimizer import set_rate
from avdata.trainer.saver import Saver
from avdata.trainer.step import Learner, Taken, take_step
from avdata.trainer.stop import Stop
from avdata.trainer.task import Batch, Task

NAMED = 8
"""So many clips in a message."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """When things are done; steps are counted from 1."""

    steps: int
    val_every: int
    sample_every: int | None
    checkpoint_every: int
    not_finite: Literal["stop", "skip"]
    most_skipped: int
    rate: Callable[[int], float]
    """Share of the peak learning rate, by the step from 0."""
    peak_tflops: float | None


@dataclass(frozen=True, slots=True)
class Loop(Generic[Batch]):
    """All that one process trains with."""

    name: str
    """Of the run, for messages."""
    config: LoopConfig
    learner: Learner
    task: Task[Batch]
    saver: Saver
    checkpoint: Callable[[int], tuple[dict[str, Any], dict[str, Any]]]
    """What is saved of a step: tensors, and facts for people and checks."""
    report: Callable[[dict[str, Any]], None]


def run_loop(loop: Loop[Batch], first: int, stop: Stop) -> int:
    """From `first` steps on to the last one, or until told to stop; answers the step reached.

    RunError where a loss is not finite, steps find nothing that can be read or checkpoints cannot
    be written, as configured.
    """
    config, reached, skipped = loop.config, first, 0
    for step, batch, waited in _timed(loop.task.batches(first, config.steps), first):
        began = time.monotonic() - waited
        set_rate(loop.learner.optimizer, config.rate(step))
        flags = {"stop": stop.asked(), "unsaved": loop.saver.gave_up}
        taken = take_step(loop.learner, loop.task, step, batch, flags)
        took = time.monotonic() - began
        skipped = 0 if taken.applied else skipped + 1
        may_skip = config.not_finite == "skip" or taken.read_share == 0
        if skipped > (config.most_skipped if may_skip else 0):
            raise RunError(_not_applied(loop.name, step, taken))
        reached = step + 1
        # Only who reports needs to count operations.
        work = loop.task.work(batch) if loop.learner.group.rank == 0 else (0, 0)
        pace = throughput.Pace(took, waited, loop.saver.stalled(), taken.seats.real, *work)
        line = _line(loop, step, taken, pace)
        last = reached == config.steps
        if last or not taken.flags["stop"]:
            line |= loop.task.measured(
                reached,
                validate=last or reached % config.val_every == 0,
                sample=config.sample_every is not None
                and (last or reached % config.sample_every == 0),
            )
        # Reported first: what is in a checkpoint is in the metrics, too.
        loop.report(line)
        if taken.flags["unsaved"]:
            raise RunError(f"{loop.name}: checkpoints could not be written any more; make room")
        ending = last or taken.flags["stop"]
        if ending or reached % config.checkpoint_every == 0:
            loop.saver.save(reached, *loop.checkpoint(reached), last=ending)
        loop.saver.poll()
        if ending:
            break
    return reached


def _line(
    loop: Loop[Batch], step: int, taken: Taken[Batch], pace: throughput.Pace
) -> dict[str, Any]:
    """The same on every process but for the times."""
    seats = taken.seats
    group, optimizer = loop.learner.group, loop.learner.optimizer
    line: dict[str, Any] = {
        "step": step + 1,
        "epoch": seats.epoch,
        "loss": taken.loss if taken.applied else None,
        **loop.task.line(taken.sums),
        "read_share": taken.read_share,
        "gradient_norm": taken.norms["all"] if taken.applied else None,
        "learning_rate": max(options["lr"] for options in optimizer.param_groups),
        **throughput.line(pace, group.world, group.device, loop.config.peak_tflops),
        "batch_digest": storage.digest_json(seats.keys),
        "draws_digest": storage.digest_json(taken.draws[: len(seats.keys)]),
    }
    if not taken.applied:
        return line | {"skipped": True, "broken_clips": _broken(taken)}
    return line | {f"gradient_norm_{n}": one for n, one in taken.norms.items() if n != "all"}


def _broken(taken: Taken[Batch]) -> list[str]:
    """Clips whose own loss is not finite; none where it is the gradient alone."""
    seats = taken.seats
    return [seats.keys[seat] for seat in taken.broken if seat < len(seats.keys)]


def _not_applied(name: str, step: int, taken: Taken[Batch]) -> str:
    if taken.read_share == 0:
        return (
            f"{name}: step {step + 1}: none of its samples could be read, and the steps before it "
            "were not applied either; quarantine.jsonl in the run's folder says why, most_skipped "
            "is how many such steps in a row may pass"
        )
    broken, every = _broken(taken), taken.seats.keys
    shown = ", ".join(broken[:NAMED])
    more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    whose = f"of clips {shown}{more}" if broken else f"of the batch of {', '.join(every[:NAMED])}"
    return (
        f"{name}: step {step + 1} has loss {taken.loss} and gradient norm {taken.norms['all']}, "
        f"{whose}; it was not applied. Give the command with --set not_finite=skip, or train into "
        "a new folder with a lower learning_rate or in float32"
    )


def _timed(batches: Iterator[Batch], first: int) -> Iterator[tuple[int, Batch, float]]:
    """Each batch with its step and the seconds for which the loop had to wait for it."""
    step = first
    while True:
        began = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            return
        yield step, batch, time.monotonic() - began
        step += 1
