"""Turns a plan into batches in host memory, some of them ahead of their use, with threads only.

Readers wait for the disk, the network and the hash, none of which needs the interpreter, so worker
processes would add copies and nothing else. Nothing is shared between ranks.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from avdata.errors import CorruptShard, UsageError
from avdata.pipeline.shards.table import Table
from avdata.trainer.data.buffers import Ring, room
from avdata.trainer.data.config import ReadConfig
from avdata.trainer.data.counters import Counters
from avdata.trainer.data.layout import TEXTS, Laid, laid_out, places_of
from avdata.trainer.data.located import Located, locate
from avdata.trainer.data.plan import GlobalBatch, Plan, slice_of
from avdata.trainer.data.quarantine import Quarantine
from avdata.trainer.data.readers import Readers
from avdata.trainer.data.sample_reader import SampleReader

LOCATED = 256
"""Seats at least that are looked up at once: a small batch costs as much as some hundred seats."""
Role = str


@dataclass(frozen=True, slots=True)
class HostBatch:
    """One rank's share of a step in host memory, as it lies in the shards."""

    plan: GlobalBatch
    seats: Int64[ndarray, " b"]
    """Which seats of the global batch these are."""
    weights: Tensor
    """(b) float32: 1 for each sample that counts, 0 for repeats and for damaged samples."""
    keys: list[str]
    arrays: Mapping[Role, Tensor]
    """float16: latents (b ...), text (b longest d), zeros after its tokens."""
    lengths: Mapping[Role, Tensor]
    """(b) int64: tokens of each text."""
    extra: Mapping[str, Tensor]
    """What `Extra` asked for."""


Ahead = deque[tuple[HostBatch, list[Future[None]]]]
"""Batches that are being read, the next one first."""


@dataclass(frozen=True, slots=True)
class Extra:
    """More of a batch's memory, for its user to fill in the readers' threads."""

    shapes: Callable[[Mapping[Role, tuple[int, ...]]], Mapping[str, tuple[int, ...]]]
    """From the roles' batch shapes to the shapes of float32 arrays."""
    fill: Callable[[HostBatch, int], None]
    """Called once a seat, by its number in this rank's share, after it was read."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The host batches of one rank."""

    table: Table
    plan: Plan
    reader: SampleReader
    roles: Sequence[Role]
    longest: Mapping[Role, int]
    """Tokens to which each text is padded or cut."""
    rank: int
    world: int
    read: ReadConfig
    counters: Counters
    quarantine: Quarantine
    ring: Ring
    extra: Extra | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UsageError(
                f"rank = {self.rank} of world = {self.world}: the rank is a number from 0 to "
                "world - 1, over all machines"
            )

    def batches(self, first: int, last: int) -> Iterator[HostBatch]:
        """Those of steps `first` to `last` - 1, in order."""
        pool = Readers(self.read.threads)
        begun, ahead = self._begun(first, last), Ahead()
        try:
            for _ in range(first, last):  # None is held here: its memory is its user's to let go.
                yield self._next(pool, begun, ahead)
        finally:
            pool.close()

    def _next(
        self, pool: Readers, begun: Iterator[tuple[HostBatch, Sequence[Laid]]], ahead: Ahead
    ) -> HostBatch:
        """Its user waits for all of this, so that all of it counts."""
        began = time.perf_counter()
        for batch, laid in islice(begun, self.read.ahead + 1 - len(ahead)):
            fill = partial(self._fill, batch, deque(enumerate(laid)), pool.closed)
            readers = min(self.read.threads, len(laid))
            ahead.append((batch, [pool.submit(fill) for _ in range(readers)]))
        ready, reads = ahead.popleft()
        pool.wait(reads)
        self.counters.add("wait_seconds", time.perf_counter() - began)
        return ready

    def _begun(self, first: int, last: int) -> Iterator[tuple[HostBatch, Sequence[Laid]]]:
        """Batches with their memory, and what is to be read into it."""
        step = first
        while step < last:
            shares, count = [], 0
            while step < last and count < LOCATED:
                plan = self.plan.batch(step)
                seats, counts = slice_of(plan, self.rank, self.world)
                shares.append((plan, seats, counts))
                step, count = step + 1, count + len(seats)
            rows = np.concatenate([plan.rows[seats] for plan, seats, _ in shares])
            samples = iter(locate(self.table, rows, self.roles))
            for plan, seats, counts in shares:
                yield self._begin(plan, seats, counts, list(islice(samples, len(seats))))

    def _begin(
        self,
        plan: GlobalBatch,
        seats: Int64[ndarray, " b"],
        counts: Int64[ndarray, " b"],
        samples: Sequence[Located],
    ) -> tuple[HostBatch, Sequence[Laid]]:
        shapes = self._shapes(samples)
        more = {} if self.extra is None else self.extra.shapes(shapes)
        lease = self.ring.lease(
            sum(room(shape, np.float16) for shape in shapes.values())
            + sum(room(shape, np.float32) for shape in more.values())
        )
        arrays = {role: lease.take(shape, np.float16) for role, shape in shapes.items()}
        places = places_of(arrays)
        laid = [laid_out(sample, places, seat) for seat, sample in enumerate(samples)]
        batch = HostBatch(
            plan=plan,
            seats=seats,
            weights=torch.from_numpy(counts.astype(np.float32)),
            keys=[sample.key for sample in samples],
            arrays={role: torch.from_numpy(array) for role, array in arrays.items()},
            lengths={
                role: torch.tensor([one.lengths.get(role, 0) for one in laid])
                for role in self.roles
                if role in TEXTS
            },
            extra={
                name: torch.from_numpy(lease.take(shape, np.float32))
                for name, shape in more.items()
            },
        )
        lease.close()
        return batch, laid

    def _shapes(self, samples: Sequence[Located]) -> dict[Role, tuple[int, ...]]:
        """Of the arrays of a batch of them: they are of one bucket."""
        shapes = {part.role: part.shape for part in samples[0].parts}
        return {
            role: (len(samples), self.longest[role], *shapes[role][1:])
            if role in TEXTS
            else (len(samples), *shapes[role])
            for role in self.roles
        }

    def _fill(
        self, batch: HostBatch, waiting: deque[tuple[int, Laid]], closed: threading.Event
    ) -> None:
        """Reads one waiting seat after the other, as other readers do, until none is left."""
        while True:
            try:
                seat, laid = waiting.popleft()
            except IndexError:
                return
            if closed.is_set():
                return
            try:
                self.reader.read(laid, closed)
            except CorruptShard as error:
                # Every rank goes on in step: the seat stays, empty, and counts for nothing.
                self.quarantine.add(laid.sample.key, laid.sample.tar, error)
                self.counters.add("substitutes")
                batch.weights[seat] = 0
                for array in (*batch.arrays.values(), *batch.lengths.values()):
                    array[seat] = 0
            if self.extra is not None:
                self.extra.fill(batch, seat)
