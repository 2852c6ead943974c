"""Everything a training run depends on, as one frozen value that is saved beside the run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from avdata.trainer.data.config import DataConfig
from avdata.trainer.flow import SamplerConfig, TimeDensity
from avdata.trainer.model.config import Mode, ModelConfig, demo
from avdata.trainer.parallel import ParallelConfig
from avdata.trainer.schedule import ScheduleConfig
from avdata.trainer.track import TrackConfig

MAY_CHANGE = frozenset(
    {
        "steps",
        "val_every",
        "val_samples",
        "sample_every",
        "sample_count",
        "sampler",
        "checkpoint_every",
        "keep_checkpoints",
        "background_checkpoints",
        "allowed_checkpoint_failures",
        "stop_after_minutes",
        "data.read",
        "device",
        "parallel",
        "micro_batch_size",
        "activation_checkpointing",
        "compile",
        "deterministic",
        "not_finite",
        "most_skipped",
        "track",
        "peak_tflops",
    }
)
"""Settings that a resumed run may change: they do not alter the course of training, but for the
rounding of sums in another order or on another device.
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
    "most_skipped",
    "sample_count",
)
OR_NONE = (
    "learning_rate_pretrained",
    "micro_batch_size",
    "sample_every",
    "stop_after_minutes",
    "peak_tflops",
)
"""Positive where they are given."""
NOT_NEGATIVE = (
    "seed",
    "warmup_steps",
    "weight_decay",
    "val_samples",
    "allowed_checkpoint_failures",
)
FROM_SCRATCH = 3e-4
"""A learning rate for small models from random weights."""
FINE_TUNING = 1e-5
"""The paper's, for pretrained towers (arXiv 2512.02457)."""
DECAYS = ("beta1", "beta2", "ema_decay")


@dataclass(frozen=True, slots=True)
class InitConfig:
    """Pretrained towers to start from; None is random weights. See docs/model.md."""

    video: str | None = None
    """Folder of a `WanTransformer3DModel`."""
    audio: str | None = None
    """TangoFlux's folder or file, or a folder of a `FluxTransformer2DModel`."""
    joint: str | None = None
    """`joint.safetensors` of an export, or the export: what joins the towers, trained already."""

    def __post_init__(self) -> None:
        for name in ("video", "audio", "joint"):
            path = getattr(self, name)
            if path is not None:
                # A run is resumed from anywhere.
                object.__setattr__(self, name, str(Path(path).expanduser().absolute()))


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of a run. Defaults are for small models from random weights.

    The paper's learning rate, steps and batch, for its pretrained towers: examples/paper.yaml.
    """

    mode: Mode = "t2av"
    """t2v is the twin: the video tower alone, on the same clips with the same noise."""
    model: ModelConfig = field(default_factory=demo)
    init: InitConfig = field(default_factory=InitConfig)
    trained: Literal["all", "new"] = "all"
    """new freezes the pretrained towers; what joins them is trained alone."""
    seed: int = 0
    """Of weights, order, times, noise and caption dropout."""
    steps: int = 1000
    batch_size: int = 16
    """Global, over all processes."""
    micro_batch_size: int | None = None
    """Samples that a process computes at once; gradients of several are added up. None: all of
    its share of the batch."""
    data: DataConfig = field(default_factory=DataConfig)

    learning_rate: float = FROM_SCRATCH
    """At its peak."""
    learning_rate_pretrained: float | None = None
    """Of the parts that were loaded as `init` says; None is `learning_rate`."""
    warmup_steps: int = 50
    """Linear."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    weight_decay: float = 0.01
    """Of matrices; norms, biases and tables of modulation have none."""
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0
    ema_decay: float | None = 0.999
    """Of the average of the weights that is kept beside them; None keeps none."""

    time_density: TimeDensity = "logit_normal"
    time_shift: float = 1.0
    """Above 1 moves training times towards noise, as long clips need."""
    shared_time: bool = True
    """One time for both modalities, as the paper has it; else one each, independent."""
    lambda_video: float = 1.0
    lambda_audio: float = 1.0
    caption_dropout: float = 0.1
    """Share of samples trained without captions, both at once; guidance needs them."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; weights, optimizer and averages stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    activation_checkpointing: bool = False
    """Layers are computed again for their gradients: less memory, a third more work."""
    compile: str | None = None
    """Backend of torch.compile for each layer, inductor for instance; None compiles nothing."""
    deterministic: bool = False
    """Refuses GPU kernels whose sums have no fixed order; on a CPU there are none."""

    not_finite: Literal["stop", "skip"] = "stop"
    """What to do about a batch whose loss or gradient is not finite. It is never applied."""
    most_skipped: int = 3
    """Of skip, or of batches of which nothing could be read: so many steps in a row that are not
    applied, and one more stops the run."""

    val_every: int = 100
    val_samples: int = 64
    """Held-out samples, drawn from all buckets by a hash of their keys."""
    sample_every: int | None = None
    """Steps between clips made of held-out captions, with weights as they are and averaged."""
    sample_count: int = 2
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    background_checkpoints: bool = True
    """Written while training goes on."""
    allowed_checkpoint_failures: int = 3
    """So many in a row that could not be written, as on a full disk; one more stops the run."""
    stop_after_minutes: float | None = None
    """Since the command began; then it saves and ends, to be given again."""

    track: TrackConfig = field(default_factory=TrackConfig)
    peak_tflops: float | None = None
    """Of one device at `precision`, for the MFU; None: known for common GPUs in bfloat16."""

    def __post_init__(self) -> None:
        self._require_ranges()
        self._require_losses()
        if self.mode == "t2v":
            self._require_no_audio()
        elif self.model.audio_caption:
            raise ValueError("model.audio_caption is for mode t2v; t2av has the audio caption")
        if self.trained == "new":
            self._require_new()

    def _require_ranges(self) -> None:
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in OR_NONE:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive or none, not {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        for name in DECAYS:
            decay = getattr(self, name)
            if decay is not None and not 0 <= decay < 1:
                raise ValueError(f"{name} must be in [0, 1), not {decay}")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout must be in [0, 1], not {self.caption_dropout}")

    def _require_losses(self) -> None:
        lambdas = (self.lambda_video, self.lambda_audio)
        if not min(lambdas) >= 0:
            raise ValueError(f"lambda_video, lambda_audio = {lambdas} must not be negative")
        if self.lambda_video == 0 and (self.mode == "t2v" or self.lambda_audio == 0):
            raise ValueError(f"lambda_video, lambda_audio = {lambdas}: nothing is left to learn")

    def _require_no_audio(self) -> None:
        for name, given in (
            ("lambda_audio", self.lambda_audio != 1.0),
            ("init.audio", self.init.audio is not None),
            ("shared_time = false", not self.shared_time),
        ):
            if given:
                raise ValueError(f"{name} means nothing in mode t2v, which has no audio")

    def _require_new(self) -> None:
        joint = self.mode == "t2av"
        if not (self.model.num_joint if joint else self.model.audio_caption):
            what = "model.num_joint is 0" if joint else "mode t2v has no new weights"
            raise ValueError(f"trained = new leaves nothing to train: {what}")
        if self.init.video is None or (joint and self.init.audio is None):
            raise ValueError(
                "trained = new freezes towers that no one has trained; give init.video"
                + (" and init.audio" if joint else "")
            )

    def warning(self) -> str | None:
        """Of a rate by default that would undo what pretrained towers have learned."""
        given = [name for name in ("video", "audio", "joint") if getattr(self.init, name)]
        trained = given if self.trained == "all" else []
        left = self.learning_rate == FROM_SCRATCH and self.learning_rate_pretrained is None
        if not trained or not left:
            return None
        return (
            f"{' and '.join(f'init.{name}' for name in trained)} would learn at learning_rate = "
            f"{FROM_SCRATCH:g}, the default, which is for random weights and may undo what they "
            f"know; give --set learning_rate_pretrained={FINE_TUNING:g}, the paper's rate, or "
            f"={FROM_SCRATCH:g} if it is meant"
        )
