import dataclasses
from pathlib import Path

import numpy as np
import pytest

import avdata
from avdata.errors import UsageError
from avdata.pipeline.shards.browse import Shards, open_shards
from avdata.pipeline.shards.dataset import Dataset, read_sample
from tests.trainer.shards import write_buckets, write_shards
from tests.trainer.tiny import CLIP


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def keys(shards: Shards) -> set[str]:
    return set(shards.keys)


def test_it_is_at_hand_by_a_short_name() -> None:
    assert avdata.open is open_shards
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = avdata.opne


def test_samples_are_those_of_the_split_by_number_and_by_key(dataset: Dataset) -> None:
    shards = open_shards(str(dataset.root), "train")
    entries = dataset.samples("train")
    assert shards.keys == [entry.key for entry in entries]
    for number in (0, len(entries) - 1):
        written = read_sample(dataset.root, entries[number])
        for found in (shards[number], shards[entries[number].key]):
            assert np.array_equal(found.video, written.video)
            assert found.meta == written.meta
    assert shards.entry(np.int64(-1)) == shards.entry(len(entries) - 1)
    with pytest.raises(TypeError):
        shards.entry(0.5)  # type: ignore[arg-type]
    assert len(open_shards(dataset.root)) == len(entries) + len(dataset.samples("val"))


def test_all_are_in_the_order_of_the_shards_and_equal_to_themselves_only(tmp_path: Path) -> None:
    dataset = write_buckets(tmp_path, [(7, CLIP), (4, dataclasses.replace(CLIP, num_frames=17))])
    splits = [shard["split"] for shard in dataset.shards]
    assert splits != sorted(splits)
    shards = open_shards(dataset.root)
    assert shards.keys == [one.key for _, index in dataset.indices() for one in index.samples]
    assert shards == shards
    assert shards != open_shards(dataset.root)
    assert len({shards, shards[:1]}) == 2


def test_filters_are_by_subset_and_by_facts(dataset: Dataset) -> None:
    shards = open_shards(dataset.root, "train")
    contact = {entry.key for entry in dataset.samples("train") if "contact" in entry.subsets}
    assert keys(shards.subset("contact")) == contact
    one = shards.keys[3]
    assert keys(shards.where(lambda facts: facts["clip_id"] == one)) == {one}
    assert len(shards.subset("contact").where(lambda _: False)) == 0


def test_a_slice_is_a_selection(dataset: Dataset) -> None:
    shards = open_shards(dataset.root, "train")
    assert shards[1:5:2].keys == shards.keys[1:5:2]
    assert len(shards[3:3]) == 0
    assert shards[-2:].entry(0) == shards.entry(-2)


def test_what_is_not_there_is_named_with_what_is(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="no split test; there are: train, val"):
        open_shards(dataset.root, "test")
    with pytest.raises(UsageError, match="no subset hits; there are: contact"):
        open_shards(dataset.root).subset("hits")
    with pytest.raises(KeyError, match="no sample abc"):
        _ = open_shards(dataset.root)["abc"]


def test_no_shards_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no dataset.json .*avdata encode"):
        open_shards(tmp_path)
