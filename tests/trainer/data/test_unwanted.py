"""Batches that nobody wants any more."""

import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from avdata.pipeline.shards.store import LocalStore
from avdata.trainer.data.layout import Laid
from tests.trainer.data.loaders import STRICT, a_loader, over, write


class Late:
    """A store on a folder that answers so many times, and then only when nobody wants it."""

    def __init__(self, root: Path, sound: int) -> None:
        self.root = str(root)
        self.calls, self._first = 0, sound
        self.stop = threading.Event()
        self._sound = LocalStore(str(root))

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        self.calls += 1
        if self.calls > self._first:
            assert self.stop.wait(60)
        self._sound.read_into(name, offset, pieces)


def test_no_more_is_read_once_the_batches_are_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write(tmp_path)
    loader = a_loader(dataset.root, read=dataclasses.replace(STRICT, threads=1, ahead=2))
    size = len(loader.keys(0))
    loader = over(loader, store := Late(Path(dataset.root), size))
    read = loader.feed.reader.read

    def noted(laid: Laid, stop: threading.Event) -> None:
        store.stop = stop
        read(laid, stop)

    monkeypatch.setattr(loader.feed.reader, "read", noted)
    with contextlib.closing(loader.feed.batches(0, 3)) as batches:  # type: ignore[type-var]
        next(batches)
    assert store.calls <= size + 1
