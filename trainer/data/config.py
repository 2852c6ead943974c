"""Settings of the loader: what alters the order of training, and what only alters its speed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Remainder = Literal["pad", "carry", "drop"]


@dataclass(frozen=True, slots=True)
class MixConfig:
    """Which samples, how often, in batches of which size; part of a run's identity."""

    batch_tokens: int | None = None
    """Size of a global batch in latent tokens of one sample each, video and audio; takes the place
    of `batch_size`, so that buckets of long clips have smaller batches. None is `batch_size`."""
    batch_multiple: int = 1
    """Sizes made of `batch_tokens` are rounded down to multiples of this; processes share a batch
    without repeats where it is a multiple of their number."""
    remainder: Remainder = "pad"
    """What becomes of a bucket's last samples of an epoch where they are no whole batch: repeats
    of weight 0 fill it up, they are carried into the next epoch, or dropped."""
    only_subsets: tuple[str, ...] = ()
    """Samples in at least one of these; all where empty."""
    without_subsets: tuple[str, ...] = ()
    """No samples that are in any of these."""
    only_buckets: tuple[str, ...] = ()
    subset_weights: dict[str, float] = field(default_factory=dict)
    """How many times an epoch the samples of a subset come; a fraction takes its share of them in
    turn. A sample's weight is the product over its subsets and its source."""
    source_weights: dict[str, float] = field(default_factory=dict)
    """The same by source: the digest of the file, or its beginning."""

    def __post_init__(self) -> None:
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ValueError(f"batch_tokens must be positive, not {self.batch_tokens}")
        if self.batch_multiple < 1:
            raise ValueError(f"batch_multiple must be positive, not {self.batch_multiple}")
        for name, weights in (("subset", self.subset_weights), ("source", self.source_weights)):
            for key, weight in weights.items():
                if not 0 <= weight < 1e6:
                    raise ValueError(f"{name}_weights.{key} must be in [0, 1e6), not {weight}")


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """How bytes are read; a resumed run may change all of it."""

    threads: int = 4
    """Samples read at once."""
    ahead: int = 2
    """Batches read before they are needed."""
    attempts: int = 8
    """Reads of one range from an object store before it counts as unreachable."""
    timeout_seconds: float = 20.0
    """Of one of them; all together stay below a collective's ten minutes."""
    max_bad_samples: int = 8
    """Damaged samples that a process leaves out with weight 0 before it stops the run."""
    max_bad_share: float = 0.01
    """The same as a share of all samples; the lower number counts, so that a small set of shards
    allows none."""
    cache: str | None = None
    """Folder for copies of what was read, of local shards too; None keeps none."""
    cache_gib: float = 64.0
    """The most that it may hold."""

    def __post_init__(self) -> None:
        for name in ("threads", "attempts", "timeout_seconds", "cache_gib"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("ahead", "max_bad_samples"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share must be in [0, 1], not {self.max_bad_share}")
        if self.attempts * (self.timeout_seconds + 30.0) > 540:
            raise ValueError(
                f"attempts = {self.attempts} of timeout_seconds = {self.timeout_seconds} may take "
                "longer than the other processes wait; give fewer or shorter ones"
            )
        if self.cache is not None:
            object.__setattr__(self, "cache", str(Path(self.cache).expanduser().absolute()))

    def most_bad(self, num_samples: int) -> int:
        """Damaged samples that may be left out of so many."""
        return min(self.max_bad_samples, int(self.max_bad_share * num_samples))


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Both."""

    mix: MixConfig = field(default_factory=MixConfig)
    read: ReadConfig = field(default_factory=ReadConfig)
