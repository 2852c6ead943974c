"""Everything a training run depends on, as one frozen value that is saved beside the run."""

from dataclasses import dataclass, field
from typing import Literal

from avdata.trainer.flow import TimeDensity
from avdata.trainer.model.config import Mode, ModelConfig, demo

MAY_CHANGE = frozenset(
    {
        "steps",
        "val_every",
        "val_samples",
        "checkpoint_every",
        "keep_checkpoints",
        "reader_threads",
        "read_ahead",
        "device",
    }
)
"""Settings that a resumed run may change: they do not alter the course of training, but for the
rounding of another device.
"""
POSITIVE = (
    "steps",
    "batch_size",
    "learning_rate",
    "clip_norm",
    "time_shift",
    "val_every",
    "checkpoint_every",
    "keep_checkpoints",
    "reader_threads",
)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of a run; where the paper is silent, the default is a plain choice of the field."""

    mode: Mode = "t2av"
    """t2v is the twin: the video tower alone, on the same clips with the same noise."""
    model: ModelConfig = field(default_factory=demo)
    seed: int = 0
    """Of weights, order, times, noise and caption dropout."""
    steps: int = 1000
    batch_size: int = 16
    """Global, over all processes, which must share it equally."""
    learning_rate: float = 3e-4
    warmup_steps: int = 50
    """Linear; constant afterwards, so that a run can be prolonged."""
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0
    time_density: TimeDensity = "logit_normal"
    time_shift: float = 1.0
    """Above 1 moves training times towards noise, as long clips need."""
    lambda_video: float = 1.0
    lambda_audio: float = 1.0
    caption_dropout: float = 0.1
    """Share of samples trained without captions, both at once; guidance needs them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; weights and optimizer stay float32."""
    val_every: int = 100
    val_samples: int = 64
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    reader_threads: int = 4
    read_ahead: int = 2
    """Batches read before they are needed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("seed", "warmup_steps", "weight_decay", "val_samples", "read_ahead"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout must be in [0, 1], not {self.caption_dropout}")
