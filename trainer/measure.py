"""What is measured of a model now and then, with its weights as they are and averaged."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from avdata.trainer.batch import Batch
from avdata.trainer.checkpoint import Weights
from avdata.trainer.denoise import computing
from avdata.trainer.flow import Losses, flow_loss
from avdata.trainer.loader import Loader
from avdata.trainer.parallel import forget_gathered, raw
from avdata.trainer.run import Run
from avdata.trainer.step import Learner
from avdata.trainer.validate import TIMES, HeldOut, errors, summary


class Measures:
    """Validation and clips of one run."""

    def __init__(self, run: Run, learner: Learner, loader: Loader) -> None:
        self._run, self._learner = run, learner
        config, reader = run.config, loader.reader
        at_once = config.micro_batch_size or len(TIMES)
        self._held_out = HeldOut(loader.held_out(config.val_samples), reader, at_once)
        self._preview = None
        shown = [] if config.sample_every is None else loader.held_out(config.sample_count)
        if shown:
            from avdata.trainer.preview import Preview

            self._preview = Preview(run, reader, shown, learner.group)

    def after(self, step: int, validate: bool, sample: bool) -> dict[str, Any]:
        """Metrics and names of clips; all ranks call it."""
        out: dict[str, Any] = {}
        for weights in self._kinds():
            with self._as(weights):
                if validate and self._held_out.entries:
                    out |= self._validated(weights, out)
                if sample and self._preview is not None:
                    made = self._preview.make(raw(self._learner.parallel), step, weights)
                    out["samples"] = [*out.get("samples", []), *made]
        return out

    def _kinds(self) -> list[Weights]:
        return ["raw"] if self._learner.ema is None else ["raw", "ema"]

    @contextmanager
    def _as(self, weights: Weights) -> Iterator[None]:
        """Whatever was gathered of other weights is forgotten on both ends."""
        ema = self._learner.ema if weights == "ema" else None
        forget_gathered(self._learner.parallel)
        with contextlib.nullcontext() if ema is None else ema.in_place():
            yield
            forget_gathered(self._learner.parallel)

    def _validated(self, weights: Weights, so_far: dict[str, Any]) -> dict[str, Any]:
        found, entries = errors(
            raw(self._learner.parallel), self._losses, self._held_out, self._learner.group
        )
        audio = self._run.config.mode == "t2av"
        told = summary(found, entries, audio=audio) if entries else {"samples": 0}
        told["damaged"] = len(self._held_out.entries) - len(entries)
        prefix = "val_loss" if weights == "raw" else "val_ema_loss"
        flat = {f"{prefix}_{name}": told[name] for name in ("video", "audio") if name in told}
        return flat | {"validation": {**so_far.get("validation", {}), weights: told}}

    def _losses(self, model: Any, batch: Batch, t: Any) -> Losses:  # noqa: ANN401 (as Model)
        with computing(self._run.config, self._learner.group.device):
            return flow_loss(model, batch.video, batch.audio, t, batch.share)
