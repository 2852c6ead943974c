"""Host memory that batches are read into, used again once nothing refers to what was cut from it.

Fresh memory costs more than reading into it, and copies to a GPU want it pinned. No one has to
give anything back: a block is free when the last tensor on it is gone, so a batch that is kept
costs memory and is never written over.
"""

import math
import weakref
from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64


class Ring:
    """Blocks of the size of the largest batch so far; `keep` of them wait for their next use."""

    def __init__(self, keep: int, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._largest = 0
        self._free: deque[torch.Tensor] = deque(maxlen=keep)
        self.num_blocks = 0
        """Allocated so far."""

    def lease(self, num_bytes: int) -> "Lease":
        """A block with room for so many bytes."""
        self._largest = max(self._largest, num_bytes)
        while True:
            try:
                block = self._free.popleft()
            except IndexError:
                self.num_blocks += 1
                block = torch.empty(self._largest, dtype=torch.uint8, pin_memory=self._pinned)
            if len(block) >= num_bytes:  # Smaller ones are from before a larger batch.
                return Lease(block, self._free)


class Lease:
    """Cuts arrays out of a block; `close` it when the last one is cut."""

    def __init__(self, block: torch.Tensor, free: deque[torch.Tensor]) -> None:
        self._bytes = block.numpy()
        self._used = 0
        self._live = {0}
        self._free = free
        self._once = [block]

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialised; `torch.from_numpy` of it keeps the block in use, too."""
        array: NDArray[Any] = np.ndarray(shape, dtype, self._bytes, self._used)
        self._used += room(shape, dtype)
        self._live.add(self._used)
        # Collection may come at any moment in any thread: each step below is atomic.
        weakref.finalize(array, self._gone, self._used).atexit = False
        return array

    def close(self) -> None:
        """No more arrays will be cut."""
        self._gone(0)

    def _gone(self, mark: int) -> None:
        self._live.discard(mark)
        if not self._live and self._once:
            try:
                self._free.append(self._once.pop())
            except IndexError:  # Another thread was first.
                return


def room(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Bytes of a block that such an array takes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return max(1, -(-size // ALIGNMENT)) * ALIGNMENT
