import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.errors import UsageError
from avdata.pipeline.alike import alike
from avdata.pipeline.semantics import (
    BLOCK,
    MIN_PAIRS,
    Embeddings,
    agreement,
    chances,
    cosines,
    load_classes,
    mismatches,
    nearest,
)

WIDTH = 32


def unit(rows: Embeddings) -> Embeddings:
    scaled: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def pairs(count: int, seed: int = 0, noise: float = 2.0) -> tuple[Embeddings, Embeddings]:
    """Media, and texts that are weakly like them."""
    g = np.random.default_rng(seed)
    media = unit(g.normal(size=(count, WIDTH)))
    return media, unit(media + noise * unit(g.normal(size=(count, WIDTH))))


def names(count: int) -> list[str]:
    return [f"caption {k}" for k in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_captions_that_belong_pass_and_shuffled_ones_do_not(seed: int) -> None:
    media, texts = pairs(300, seed)
    assert mismatches(media, texts, names(300), names(300)) == []
    shuffled = texts[np.random.default_rng(seed).permutation(300)]
    assert mismatches(media, shuffled, names(300), names(300))


@pytest.mark.parametrize("by", [-2, -1, 1, 3])
def test_captions_moved_by_a_few_trip_even_where_neighbours_are_alike(by: int) -> None:
    g = np.random.default_rng(0)
    scenes = np.repeat(g.normal(size=(50, WIDTH)), 4, axis=0)  # Four clips of one source.
    films = np.repeat(names(50), 4).tolist()
    media = unit(scenes + 0.7 * g.normal(size=(200, WIDTH)))
    texts = unit(media + 0.5 * unit(g.normal(size=(200, WIDTH))))
    assert mismatches(media, texts, names(200), films) == []
    (found,) = mismatches(media, np.roll(texts, by, axis=0), names(200), films)
    assert f"moved by {by}:" in found.why


def test_only_the_block_that_was_mixed_up_trips() -> None:
    media, texts = pairs(4 * BLOCK)
    texts[BLOCK : 2 * BLOCK] = texts[BLOCK : 2 * BLOCK][::-1]
    (found,) = mismatches(media, texts, names(4 * BLOCK), names(4 * BLOCK))
    assert (found.first, found.last) == (BLOCK, 2 * BLOCK - 1)


@pytest.mark.parametrize("length", [BLOCK - 40, 8 * BLOCK])
@pytest.mark.parametrize("detail", [0.0, 1.0])
def test_a_long_film_whose_captions_say_little_of_its_clips_does_not_trip(
    length: int, detail: float
) -> None:
    """Within it any of its captions fits nearly as well as the own; those of others do not."""
    g = np.random.default_rng(0)
    lengths = [*[1] * BLOCK, length, *[1] * (3 * BLOCK)]
    films = np.repeat(names(len(lengths)), lengths).tolist()
    scenes = np.repeat(g.normal(size=(len(lengths), WIDTH)), lengths, axis=0)
    of_clips = g.normal(size=scenes.shape)
    media = unit(scenes + of_clips)
    texts = unit(scenes + detail * of_clips + 8 * g.normal(size=scenes.shape))
    captions = names(len(films))
    assert mismatches(media, texts, captions, films) == []
    first, last = texts[:BLOCK].copy(), texts[BLOCK : 2 * BLOCK].copy()
    texts[:BLOCK], texts[BLOCK : 2 * BLOCK] = last, first
    found = mismatches(media, texts, captions, films)
    assert [one.first for one in found] == [0, BLOCK]


def test_captions_of_one_film_alone_are_told_from_its_others() -> None:
    media, texts = pairs(300)
    assert mismatches(media, texts, names(300), ["a film"] * 300) == []
    assert mismatches(media, texts[::-1], names(300), ["a film"] * 300)


def test_what_proves_nothing_does_not_trip() -> None:
    media, texts = pairs(100)
    few = MIN_PAIRS - 1
    assert mismatches(media[:few], texts[:few][::-1], names(few), names(few)) == []
    assert (
        mismatches(media, np.repeat(texts[:1], 100, axis=0), ["the same"] * 100, names(100)) == []
    )


def test_tags_are_the_nearest_classes_in_order(tmp_path: Path) -> None:
    classes = unit(np.eye(5, WIDTH, dtype=np.float32))
    labels = ("a", "b", "c", "d", "e")
    media = unit(np.array([[0, 3, 0, 2, 1, *[0] * (WIDTH - 5)]], np.float32))
    assert nearest(media, classes, labels, 3) == [["b", "d", "e"]]
    assert sorted(nearest(media, classes, labels, 9)[0]) == sorted(labels)
    file = tmp_path / "classes.txt"
    file.write_text("# mine\nrain\n\n  dog, barking \nrain\n")
    assert load_classes(file).names == ("rain", "dog, barking")
    assert len(load_classes().names) == 309
    file.write_text("rain\n")
    with pytest.raises(UsageError, match="1 classes"):
        load_classes(file)


def test_cosines_are_of_each_pair() -> None:
    media, texts = pairs(10)
    np.testing.assert_allclose(cosines(media, texts), np.diagonal(media @ texts.T), rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 60))
def test_groups_are_the_connected_parts(seed: int, count: int) -> None:
    g = np.random.default_rng(seed)
    some = unit(g.normal(size=(count, 3)))
    first = alike(some, 0.9)
    near = some @ some.T >= 0.9
    for k in range(count):
        members = {k}
        while grown := {int(j) for i in members for j in np.flatnonzero(near[i])} - members:
            members |= grown
        assert first[k] == min(members)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_groups_do_not_depend_on_how_many_are_compared_at_once(seed: int, rows: int) -> None:
    g = np.random.default_rng(seed)
    some = unit(g.normal(size=(50, 3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avdata.pipeline.alike.ROWS", rows)
        found = alike(some, 0.9)
    np.testing.assert_array_equal(found, alike(some, 0.9))


def test_the_memory_of_a_group_does_not_go_with_its_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("avdata.pipeline.alike.ROWS", 64)

    def peak(count: int) -> int:
        same = np.repeat(unit(np.ones((1, 4), np.float32)), count, axis=0)
        tracemalloc.start()
        try:
            assert not alike(same, 0.9).any()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(2_400) < 6 * peak(600)


def test_copies_are_found_among_many_buckets() -> None:
    pytest.importorskip("faiss", reason="needs the extra alike")
    g = np.random.default_rng(0)
    own = unit(g.normal(size=(9_000, WIDTH)))
    copies = unit(own[:1_000] + 0.01 * g.normal(size=(1_000, WIDTH)))
    both = np.concatenate([own, copies]).astype(np.float16)
    first = alike(both, 0.98)
    assert (first[9_000:] == np.arange(1_000)).mean() > 0.99
    assert (first[:9_000] == np.arange(9_000)).all()


def test_chances_are_those_of_a_softmax_and_agreement_is_one_of_equals_and_zero_of_strangers() -> (
    None
):
    media, classes = pairs(40)[0], unit(np.random.default_rng(1).normal(size=(7, WIDTH)))
    found = chances(media, classes, 100.0)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    powers = np.exp(100.0 * (media @ classes.T).astype(np.float64))
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-3)
    np.testing.assert_allclose(agreement(found, found), 1, rtol=1e-5)
    other = chances(pairs(40, seed=2)[0], classes, 100.0)
    mixed = agreement(found, other)
    np.testing.assert_allclose(mixed, agreement(other, found), rtol=1e-5)
    assert ((mixed >= 0) & (mixed <= 1)).all()
    assert (agreement(found, 0.5 * found + 0.5 * other) >= mixed - 1e-5).all()
    certain = np.eye(7, dtype=np.float32)
    np.testing.assert_allclose(agreement(certain, np.roll(certain, 1, axis=0)), 0)
