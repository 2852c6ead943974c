import io
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from avdata.errors import CorruptShard
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import open_store
from avdata.trainer.data.counters import Counters
from avdata.trainer.data.layout import LARGEST_GAP, TEXTS, laid_out, places_of
from avdata.trainer.data.located import Located, Part
from avdata.trainer.data.sample_reader import SampleReader

Arrays = dict[str, NDArray[np.float16]]
LONGEST = 3
SHAPES = {"video": (2, 3, 4), "audio": (5, 2)}


def saved(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def written(folder: Path, gaps: dict[str, int], tokens: int) -> tuple[Located, Arrays]:
    """A tar of members at some distance, in the order of `gaps`."""
    data, parts, arrays = b"", [], {}
    for number, (role, gap) in enumerate(gaps.items()):
        shape = (tokens, 4) if role in TEXTS else SHAPES[role]
        arrays[role] = np.random.default_rng(number).standard_normal(shape).astype(np.float16)
        member = saved(arrays[role])
        data += b"x" * gap
        parts.append(Part(role, len(data), len(member), xxhash.xxh3_64_intdigest(member), shape))
        data += member
    (folder / "tar").write_bytes(data)
    return Located("key", "tar", parts), arrays


def seats(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    return {role: np.full((3, *shape), 7, np.float16) for role, shape in shapes.items()}


def reader(folder: Path, counters: Counters) -> SampleReader:
    return SampleReader(open_store(folder), Attempts(1), counters)


GAPS = st.sampled_from([0, 1, 512, LARGEST_GAP, LARGEST_GAP + 1])
ORDERS = st.permutations(["video", "audio", *TEXTS])


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=ORDERS, gaps=st.lists(GAPS, min_size=4, max_size=4), tokens=st.integers(0, 5))
def test_a_seat_holds_what_was_written_and_its_neighbours_are_left_alone(
    tmp_path: Path, order: list[str], gaps: list[int], tokens: int
) -> None:
    sample, arrays = written(tmp_path, dict(zip(order, gaps, strict=True)), tokens)
    batch, counters = seats(SHAPES | dict.fromkeys(TEXTS, (LONGEST, 4))), Counters()
    laid = laid_out(sample, places_of(batch), 1)
    reader(tmp_path, counters).read(laid)
    for role, found in batch.items():
        assert (found[[0, 2]] == 7).all()
        kept = arrays[role][:LONGEST] if role in TEXTS else arrays[role]
        assert np.array_equal(found[1][: len(kept)], kept)
        assert not found[1][len(kept) :].any()
    assert laid.lengths == dict.fromkeys(TEXTS, min(tokens, LONGEST))
    assert counters.snapshot()["reads"] == 1 + sum(gap > LARGEST_GAP for gap in gaps[1:])


def test_what_does_not_fit_its_seat_is_named(tmp_path: Path) -> None:
    sample, _ = written(tmp_path, {"video": 0}, 0)
    (part,) = sample.parts
    longer = sample._replace(parts=[part._replace(length=part.length + 5000)])
    for one, shape, message in (
        (sample, (2, 3, 5), r"tar: key.video.npy has shape \(2, 3, 4\), the others .* \(2, 3, 5\)"),
        (longer, (2, 3, 4), r"tar: key.video.npy has 5176 bytes for \(2, 3, 4\)"),
    ):
        laid = laid_out(one, places_of(seats({"video": shape})), 0)
        with pytest.raises(CorruptShard, match=message):
            reader(tmp_path, Counters()).read(laid)


@pytest.mark.parametrize(
    ("array", "holds"),
    [
        (np.zeros(SHAPES["video"], np.float32), r"float32 \(2, 3, 4\)"),
        (np.zeros(SHAPES["video"], ">f2"), r">f2 \(2, 3, 4\)"),
        (np.zeros(SHAPES["video"], np.float16, order="F"), r"float16 \(2, 3, 4\)"),
        (np.zeros((2, 4, 3), np.float16), r"float16 \(2, 4, 3\)"),
    ],
)
def test_an_array_of_another_kind_is_refused_though_its_bytes_are_those_of_the_index(
    tmp_path: Path, array: NDArray[Any], holds: str
) -> None:
    member = saved(array)
    (tmp_path / "tar").write_bytes(member)
    digest = xxhash.xxh3_64_intdigest(member)
    part = Part("video", 0, len(member), digest, SHAPES["video"])
    laid = laid_out(Located("key", "tar", [part]), places_of(seats({"video": part.shape})), 0)
    with pytest.raises(CorruptShard, match=rf"tar: key.video.npy holds {holds}"):
        reader(tmp_path, Counters()).read(laid)


STATUS = Path("/proc/self/statm")


@pytest.mark.skipif(not STATUS.exists(), reason="resident memory is read from Linux's /proc")
def test_what_is_cut_off_takes_no_memory_before_it_is_read() -> None:
    def resident() -> int:
        return int(STATUS.read_text().split()[1]) * resource.getpagesize()

    places = places_of({"audio_text": np.empty((1, LONGEST, 1024), np.float16)})
    tokens = 1 << 15
    length = tokens * 2048
    part = Part("audio_text", 0, 128 + length, 0, (tokens, 1024))
    before = resident()
    laid = laid_out(Located("key", "tar", [part]), places, 0)
    assert resident() - before < length / 8
    assert sum(map(len, laid.ranges[0][1])) == part.length
