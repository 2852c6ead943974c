import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32
from numpy import ndarray

from avdata.pipeline.arrow import from_table, to_table
from avdata.pipeline.decide import decide
from avdata.pipeline.dedup import with_duplicates
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.policy import Policy, load_policy
from avdata.pipeline.record import Clip, Duplicates, Fingerprint
from tests.pipeline.clips import a_clip
from tests.pipeline.media import (
    RATE,
    Image,
    Sound,
    silence,
    textured,
    times_at,
    tone,
    with_square,
    write_movie,
)

CONFIG = IngestConfig()
ALONE = Duplicates(None, None, None, best=True)
SECONDS, FPS = 7.0, 30


def flight(seed: int, fps: float, start_s: float = 0.0, scene: int = 1) -> list[Image]:
    """Two squares that wander over a scene, each seed its own way."""
    rng = np.random.default_rng(seed)
    knots = rng.uniform([0, 0], [260, 130], (2, 14, 2))
    at = np.arange(14) * 0.6
    background = textured(scene, 180, 320)
    images = []
    for t in np.arange(start_s, SECONDS, 1 / fps):
        image = background
        for way in knots:
            x, y = (float(np.interp(t, at, way[:, axis])) for axis in (0, 1))
            image = with_square(image, x, y, side=44)
        images.append(image)
    return images


def melody(seed: int, start_s: float = 0.0) -> Float32[ndarray, "2 m"]:
    rng = np.random.default_rng(seed)
    notes = [tone(hz, 0.2, 0.25) + tone(1.5 * hz, 0.2, 0.1) for hz in rng.uniform(250, 1500, 35)]
    sound = np.concatenate(notes, axis=1)
    sound += 0.004 * rng.standard_normal(sound.shape)
    return np.ascontiguousarray(sound[:, round(start_s * RATE) :]).astype(np.float32)


def source(
    path: Path, pictures: list[Image], sound: Float32[ndarray, "2 m"] | None, fps: float = FPS
) -> list[Clip]:
    heard = None if sound is None else Sound(sound)
    write_movie(path, pictures, times_at(fps, len(pictures)), heard)
    return measure_source(path, path.name, CONFIG)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Clip]]:
    """An original; a copy at half the size and rate, 0.3 s shorter; and what only resembles it."""
    root = tmp_path_factory.mktemp("dedup")
    small = [
        cv2.resize(image, (160, 90), interpolation=cv2.INTER_AREA) for image in flight(1, 15, 0.3)
    ]
    return {
        "original": source(root / "original.mp4", flight(1, FPS), melody(1)),
        "copy": source(root / "copy.mkv", small, 0.5 * melody(1, 0.3), 15),
        "dubbed": source(root / "dubbed.mp4", flight(1, FPS), melody(2)),
        "reused": source(root / "reused.mp4", flight(3, FPS, scene=3), melody(1)),
        "same scene": source(root / "scene.mp4", flight(4, FPS), melody(4)),
        "still": source(root / "still.mp4", [textured(9, 180, 320)] * 70, silence(70 / FPS)),
        "still again": source(root / "again.mp4", [textured(9, 180, 320)] * 69, None),
    }


def deduplicated(clips: list[Clip]) -> dict[str, list[Duplicates]]:
    """By source, in order of start."""
    found: dict[str, list[Duplicates]] = {}
    rows = from_table(Clip, decide(with_duplicates(to_table(Clip, clips)), Policy({})))
    for clip in sorted(rows, key=lambda each: each.start_s):
        assert clip.duplicates is not None
        found.setdefault(clip.source.uri, []).append(clip.duplicates)
    return found


@pytest.fixture(scope="module")
def found(corpus: dict[str, list[Clip]]) -> dict[str, list[Duplicates]]:
    by_uri = deduplicated([clip for clips in corpus.values() for clip in clips])
    return {name: by_uri[clips[0].source.uri] for name, clips in corpus.items()}


def test_a_copy_coded_anew_is_in_the_originals_groups_clip_by_clip(
    found: dict[str, list[Duplicates]],
) -> None:
    assert len(found["original"]) == len(found["copy"]) == 3
    for one, other in zip(found["original"], found["copy"], strict=True):
        assert one.picture_group is not None
        assert one.sound_group is not None
        assert (one.picture_group, one.sound_group) == (other.picture_group, other.sound_group)
    assert len({one.picture_group for one in found["original"]}) == 3
    assert len({one.sound_group for one in found["original"]}) == 3


def test_of_original_and_copy_the_original_is_best(found: dict[str, list[Duplicates]]) -> None:
    assert [one.best for one in found["original"]] == [True] * 3
    assert [one.best for one in found["copy"]] == [False] * 3


def test_a_dubbed_video_shares_the_picture_alone_and_stays(
    found: dict[str, list[Duplicates]],
) -> None:
    for one, other in zip(found["original"], found["dubbed"], strict=True):
        assert one.picture_group == other.picture_group
        assert other.sound_group is None
        assert other.best


def test_a_sound_used_again_shares_the_sound_alone_and_stays(
    found: dict[str, list[Duplicates]],
) -> None:
    for one, other in zip(found["original"], found["reused"], strict=True):
        assert one.sound_group == other.sound_group
        assert other.picture_group is None
        assert other.best


@pytest.mark.parametrize("name", ["same scene", "still", "still again"])
def test_one_scene_is_not_one_clip_and_stillness_and_silence_are_no_copies(
    found: dict[str, list[Duplicates]], name: str
) -> None:
    assert set(found[name]) == {ALONE}


def test_the_policy_drops_what_is_not_best(corpus: dict[str, list[Clip]]) -> None:
    table = with_duplicates(to_table(Clip, [*corpus["original"], *corpus["copy"]]))
    reasons = decide(table, load_policy())["reasons"].to_pylist()
    assert ["duplicate" in each for each in reasons] == [False] * 3 + [True] * 3


@settings(deadline=None, max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(
    corpus: dict[str, list[Clip]], random: "np.random.Generator"
) -> None:
    clips = [clip for each in corpus.values() for clip in each]
    mixed = clips.copy()
    random.shuffle(mixed)
    assert deduplicated(mixed) == deduplicated(clips)


def printed(source: str, picture: list[int], sound: list[int], width: int = 320) -> Clip:
    clip = a_clip(source)
    media = dataclasses.replace(clip.media, width=width)
    return dataclasses.replace(clip, media=media, fingerprint=Fingerprint(picture, sound))


def some_prints(seed: int, count: int, bits: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(each) for each in rng.integers(1, 1 << (bits - 1), count)]


def test_every_clip_stays_in_the_table_as_it_was() -> None:
    clips = [
        printed(f"{k}.mp4", some_prints(k % 3, 8, 64), some_prints(k % 2, 40, 32), 320 + 2 * k)
        for k in range(12)
    ]
    rows = from_table(Clip, with_duplicates(to_table(Clip, clips)))
    assert [dataclasses.replace(row, duplicates=None) for row in rows] == clips


def test_each_group_of_copies_has_one_best_the_one_with_most_pixels() -> None:
    clips = [
        printed(f"{k}.mp4", some_prints(k % 3, 8, 64), some_prints(k % 3, 40, 32), 320 + 2 * k)
        for k in range(12)
    ]
    rows = from_table(Clip, decide(with_duplicates(to_table(Clip, clips)), Policy({})))
    best = [row.source.uri for row in rows if row.duplicates and row.duplicates.best]
    assert best == ["9.mp4", "10.mp4", "11.mp4"]
    groups = {row.duplicates.sound_group for row in rows if row.duplicates}
    assert groups == {min(clip.clip_id for clip in clips[k::3]) for k in range(3)}


def noisy(prints: list[int], bits: int, share: float, rng: np.random.Generator) -> list[int]:
    wrong = rng.random((len(prints), bits)) < share
    flips = (wrong * (1 << np.arange(bits, dtype=np.uint64))).sum(axis=1, dtype=np.uint64)
    return [int(each) for each in (np.array(prints, np.uint64) ^ flips).view(np.int64)]


@pytest.mark.parametrize("errors", [(0.0, 0.0), (0.03, 0.1)])
def test_of_many_copies_of_two_clips_two_are_best(errors: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    picture, sound = some_prints(1, 8, 64), [some_prints(one, 44, 32) for one in (2, 3)]
    clips = [
        printed(
            f"{k}.mp4",
            noisy(picture, 64, errors[0], rng),
            noisy(sound[k % 2], 32, errors[1], rng),
            320 + 2 * int(rng.integers(100)),
        )
        for k in range(120)
    ]
    found = deduplicated(clips)
    assert len({one.picture_group for (one,) in found.values()}) == 1
    assert len({one.copy_group for (one,) in found.values()}) == 2
    assert sum(one.best is True for (one,) in found.values()) == 2


def test_the_ends_of_a_chain_are_no_copies_of_each_other() -> None:
    """Sources that begin 0.75 s apart: the first and the last two share a quarter."""
    picture, sound = some_prints(1, 20, 64), some_prints(2, 90, 32)
    clips = []
    for number, k in enumerate((0, 1, 2, 2)):
        at, heard = 3 * k, round(0.75 * k / (256 * 8 / 44_100))
        prints = picture[at : at + 8], sound[heard : heard + 44]
        clips.append(printed(f"{number}.mp4", *prints, 320 - 2 * number))
    found = deduplicated(clips)
    assert len({one.picture_group for (one,) in found.values()}) == 1
    assert [one.best for (one,) in found.values()] == [True, False, True, False]


def test_a_source_is_no_copy_of_itself() -> None:
    one = printed("a.mp4", some_prints(1, 8, 64), some_prints(1, 40, 32))
    later = dataclasses.replace(one, clip_id="later", start_s=4.0, end_s=6.0)
    assert set(deduplicated([one, later])["a.mp4"]) == {ALONE}


def test_nothing_at_all_is_a_table_too() -> None:
    assert len(with_duplicates(to_table(Clip, []))) == 0
    assert deduplicated([a_clip()]) == {"a.mp4": [ALONE]}
