"""What `data.mix` asks for is what comes, and what a state is compared by."""

import dataclasses
import json
import re
from collections import Counter
from itertools import permutations
from typing import Any

import pytest

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer.data import selection
from avdata.trainer.data.config import MixConfig
from tests.trainer.data.loaders import STRICT, a_loader, write


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("shards"))


def test_filters_and_weights_are_by_subset_bucket_and_source(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "CHUNK", 3)
    entries = dataset.samples("train")
    one = entries[0].source

    def counted(mix: MixConfig) -> Counter[str]:
        loader = a_loader(dataset.root, mix=mix)
        found: Counter[str] = Counter()
        for step in range(loader.plan.steps_before(1)):
            found.update(loader.keys(step)[: loader.plan.batch(step).num_real])
        return found

    contact = {entry.key for entry in entries if "contact" in entry.subsets}
    assert 0 < len(contact) < len(entries)
    assert counted(MixConfig(only_subsets=("contact",))) == Counter(contact)
    assert counted(MixConfig(only_subsets=("contact", "contact"))) == Counter(contact)
    rest = {entry.key for entry in entries} - contact
    assert counted(MixConfig(without_subsets=("contact",))) == Counter(rest)
    bucket = {entry.key for entry in entries if entry.bucket == "25x64x32"}
    assert counted(MixConfig(only_buckets=("25x64x32",))) == Counter(bucket)
    by_source = {one[:12]: 3.0, one[:11]: 2.0}
    doubled = counted(MixConfig(subset_weights={"contact": 2}, source_weights=by_source))
    for entry in entries:
        wanted = (2 if entry.key in contact else 1) * (6 if entry.source == one else 1)
        assert doubled[entry.key] == wanted
    without = counted(MixConfig(source_weights={one: 0}))
    assert set(without) == {entry.key for entry in entries if entry.source != one}


@pytest.mark.parametrize(("weight", "epochs"), [(0.5, 2), (0.1, 10), (0.01, 100), (1.4, 5)])
def test_a_weight_is_exact_also_where_it_has_a_few_samples(
    dataset: Dataset, weight: float, epochs: int
) -> None:
    loader = a_loader(dataset.root, mix=MixConfig(subset_weights={"contact": weight}))
    found: Counter[str] = Counter()
    for step in range(loader.plan.steps_before(epochs)):
        found.update(loader.keys(step)[: loader.plan.batch(step).num_real])
    for entry in dataset.samples("train"):
        wanted = weight if "contact" in entry.subsets else 1
        assert found[entry.key] == round(epochs * wanted)


def test_the_same_weights_in_another_order_are_the_same_plan(dataset: Dataset) -> None:
    """Products of floats would depend on it: 0.1 * 0.3 * 1.3 is not 1.3 * 0.3 * 0.1."""
    one = dataset.samples("train")[0].source
    weights = {one[:8]: 0.1, one[:10]: 0.3, one[:12]: 1.3}
    orders = []
    for some in permutations(weights.items()):
        mix = MixConfig(source_weights=dict(some), subset_weights={"contact": 0.039})
        loader = a_loader(dataset.root, mix=mix)
        (sizes,) = [by for by in loader.order.identity["samples"].values() if len(by) > 2]
        # One that was not struck in this source, as often as the struck ones of others.
        assert sizes["39/1000"] > 1
        orders.append((loader.order.identity, [loader.keys(step) for step in range(20)]))
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (MixConfig(only_subsets=("contacts",)), "no subset contacts .* there are: contact"),
        (MixConfig(only_buckets=("9x9x9",)), "no bucket 9x9x9 .* there are: 25x64x32, 9x64x64"),
        (MixConfig(source_weights={"zz": 1.0}), "source_weights.zz: no source"),
        (MixConfig(only_subsets=("contact",), subset_weights={"contact": 0}), "leave none"),
    ],
)
def test_what_selects_nothing_is_refused(dataset: Dataset, mix: MixConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        a_loader(dataset.root, mix=mix)


def test_a_token_budget_gives_every_bucket_its_size(dataset: Dataset) -> None:
    loader = a_loader(dataset.root, mix=MixConfig(batch_tokens=200, batch_multiple=2))
    sizes = loader.order.identity["batch_sizes"]
    assert set(sizes) == {"9x64x64", "25x64x32"}
    for batch in loader.batches(0, 8):
        assert batch.audio is not None
        _, _, t, h, w = batch.video.latents.shape
        tokens = t * h * w // 4 + batch.audio.latents.shape[-1]
        assert len(batch.keys) == 200 // tokens // 2 * 2 > 0
    assert len(set(sizes.values())) == 2


@pytest.mark.parametrize(("tokens", "multiple"), [(1, 1), (100, 8)])
def test_a_token_budget_is_never_exceeded(dataset: Dataset, tokens: int, multiple: int) -> None:
    def sizes(budget: int) -> dict[str, int]:
        mix = MixConfig(batch_tokens=budget, batch_multiple=multiple)
        loader = a_loader(dataset.root, mix=mix)
        found: dict[str, int] = loader.order.identity["batch_sizes"]
        return found

    def least(tokens: int) -> int:
        """What the buckets say, one after the other."""
        try:
            assert min(sizes(tokens).values()) == multiple
        except UsageError as error:
            said = re.fullmatch(r"bucket \S+: .* give (\d+) at least, .*", str(error))
            assert said
            return least(int(said[1]))
        return tokens

    tokens = least(tokens)
    with pytest.raises(UsageError, match=f"batch_tokens = {tokens - 1} has no room for"):
        sizes(tokens - 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 6}, "seed was 5, is 6"),
        ({"batch_size": 8}, "batch_sizes.9x64x64 was 4, is 8"),
        ({"mix": MixConfig(remainder="drop")}, "remainder was pad, is drop"),
        (
            {"mix": MixConfig(only_subsets=("contact",))},
            r"mix.only_subsets was \[\], is \['contact'\]; samples.*9x64x64.1 was",
        ),
        ({"mix": MixConfig(batch_tokens=200)}, "mix.batch_tokens was None, is 200"),
        ({"mix": MixConfig(subset_weights={"contact": 2})}, "mix.subset_weights.contact was None"),
    ],
)
def test_the_state_of_another_order_is_refused_with_all_that_differs(
    dataset: Dataset, changes: dict[str, Any], named: str
) -> None:
    state = a_loader(dataset.root).state(3)
    with pytest.raises(UsageError, match=named):
        a_loader(dataset.root, **changes).step_of(state)
    other = a_loader(dataset.root, read=dataclasses.replace(STRICT, threads=5, ahead=0))
    assert other.step_of(state) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MixConfig(subset_weights={"contact": 2}), MixConfig(subset_weights={"contact": 2.0})),
        (MixConfig(only_subsets=("contact",) * 2), MixConfig(only_subsets=("contact",))),
        (MixConfig(batch_multiple=2, subset_weights={"contact": 1}), MixConfig()),
        (
            MixConfig(only_buckets=("9x64x64", "25x64x32")),
            MixConfig(only_buckets=("25x64x32", "9x64x64")),
        ),
    ],
)
def test_settings_of_one_meaning_have_one_state(
    dataset: Dataset, one: MixConfig, other: MixConfig
) -> None:
    state = json.loads(json.dumps(a_loader(dataset.root, mix=one).state(3)))
    assert a_loader(dataset.root, mix=other).step_of(state) == 3
