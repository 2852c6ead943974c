"""Shards in a notebook: any sample at once, by number or key; filters; a clip to look at.

shards = avdata.open("data/shards")
hits = shards.subset("contact").where(lambda facts: facts["labels"]["motion"] == "large")
hits[0].video.shape, hits[0].meta["captions"]
hits.show(0)
"""

import base64
import json
import operator
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from avdata import config as configuration
from avdata import storage
from avdata.encoders.choice import EncodersConfig
from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import (
    Dataset,
    SampleEntry,
    describe_dataset,
    entry_of,
    read_members,
    read_sample,
)
from avdata.pipeline.shards.open_table import open_table
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.shards.table import Table

Facts = dict[str, Any]
"""What a sample's JSON says: captions, labels, events, where it comes from."""


@dataclass(frozen=True, eq=False)
class Shards:
    """Samples of a dataset, in the order of the shards; a selection of them after a filter."""

    dataset: Dataset
    table: Table
    rows: Int64[ndarray, " samples"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: SupportsIndex | str) -> EncodedSample: ...
    @overload
    def __getitem__(self, which: slice) -> "Shards": ...

    def __getitem__(self, which: SupportsIndex | str | slice) -> "EncodedSample | Shards":
        """By number or by key; CorruptShard when its bytes are not those that were written. Some of
        them by a slice of numbers, unread.
        """
        if isinstance(which, slice):
            return Shards(self.dataset, self.table, self.rows[which])
        return read_sample(self.dataset.root, self.entry(which))

    def __iter__(self) -> Iterator[EncodedSample]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        subsets = ", ".join(self.table.subset_names) or "none"
        return f"{len(self)} samples of {self.dataset.root}; subsets: {subsets}"

    @cached_property
    def keys(self) -> Sequence[str]:
        """Of all samples."""
        return self.table.keys(self.rows)

    def entry(self, which: SupportsIndex | str) -> SampleEntry:
        """Where a sample lies; IndexError, or KeyError where there is no such key."""
        number = self._number(which) if isinstance(which, str) else operator.index(which)
        return entry_of(self.table, int(self.rows[number]))

    def facts(self, which: SupportsIndex | str) -> Facts:
        """Read without its arrays."""
        found: Facts = json.loads(
            read_members(self.dataset.root, self.entry(which), ["json"])["json"]
        )
        return found

    def subset(self, name: str) -> "Shards":
        """Those of a subset, by the index alone; UsageError where there is none of that name."""
        if name not in self.table.subset_names:
            known = ", ".join(self.table.subset_names) or "none"
            raise UsageError(f"{self.dataset.root}: no subset {name}; there are: {known}")
        bit = np.uint64(1 << self.table.subset_names.index(name))
        return self._of((self.table.subsets[self.rows] & bit) != 0)

    def where(self, wanted: Callable[[Facts], bool]) -> "Shards":
        """Those whose facts are wanted; reads the facts of all."""
        return self._of(np.array([wanted(self.facts(k)) for k in range(len(self))], dtype=bool))

    def show(self, which: SupportsIndex | str) -> "Shown":
        """The clip, decoded with the encoders of the shards, for the notebook to play.

        Needs `avdata[media]`, and the encoders' weights where they have any.
        """
        return Shown(_mp4(self.dataset, self.entry(which)))

    def _number(self, key: str) -> int:
        found = np.flatnonzero(self.table.rows[self.rows]["key"] == key.encode())
        if len(found) == 0:
            raise KeyError(f"{self.dataset.root}: no sample {key}")
        return int(found[0])

    def _of(self, mask: "ndarray[Any, np.dtype[np.bool_]]") -> "Shards":
        return Shards(self.dataset, self.table, self.rows[mask])


@dataclass(frozen=True, slots=True)
class Shown:
    """An mp4 that a notebook plays."""

    mp4: bytes

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.mp4).decode()
        return f'<video controls src="data:video/mp4;base64,{data}"></video>'


def open_shards(root: str | Path, split: str | None = None) -> Shards:
    """A local folder or an s3:// prefix; one split of it, or all."""
    dataset = describe_dataset(storage.place(root))
    table = open_table(dataset)
    splits = {shard.split for shard in table.shards}
    if split is not None and split not in splits:
        raise UsageError(f"{root}: no split {split}; there are: {', '.join(sorted(splits))}")
    if split is None:
        return Shards(dataset, table, np.arange(len(table)))
    spans = [np.arange(first, last) for _, first, last in table.spans(split)]
    return Shards(dataset, table, np.concatenate(spans))


def _mp4(dataset: Dataset, entry: SampleEntry) -> bytes:
    import torch

    from avdata.pipeline.media.write import write_mp4

    plain = dataset.provenance.get("config", {}).get("encoders", {})
    chosen = configuration.from_plain(EncodersConfig, plain, f"{dataset.root}/dataset.json")
    dataset.specs.require(chosen.specs(), f"encoders to show {dataset.root} with")
    encoders = chosen.open(torch.device("cpu"))
    sample = read_sample(dataset.root, entry)
    video, audio = (torch.from_numpy(one).float()[None] for one in (sample.video, sample.audio))
    frames = encoders.video.decode(video)[0].cpu().numpy()
    samples = encoders.audio.decode(audio)[0].float().cpu().numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        rate = dataset.specs.audio.sample_rate
        write_mp4(path, frames, dataset.buckets[entry.bucket].fps, samples, rate)
        return path.read_bytes()
