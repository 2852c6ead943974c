from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError, UsageError
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.encode import encode_clips
from avdata.pipeline.shards.index import FailedClip
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample, to_members
from avdata.pipeline.sources.clips import clip_media, held
from avdata.pipeline.sources.copies import LocalCopies
from tests.pipeline.clips import a_clip

SHAPE = ClipShape(num_frames=5, height=32, width=48)
ENCODERS = EncodersConfig().open(torch.device("cpu"))


class RoomForOne(LocalCopies):
    """As if no two sources found room together: of each that is asked for, the last one goes."""

    def __init__(self) -> None:
        super().__init__(max_gib=1.0)
        self.left: list[Path] = []

    def path(self, uri: str, digest: str) -> Path:
        for before in self.left:
            before.unlink()
        path = self._folder / uri.rpartition("/")[2]
        path.write_text(digest)
        self.left = [path]
        return path


def a_film(seed: int) -> ClipMedia:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    return ClipMedia(frames, rng.uniform(-1, 1, (2, SHAPE.num_samples)).astype(np.float32))


def clips(count: int) -> list[Clip]:
    return [a_clip(f"{k}.mp4", 0.0) for k in range(count)]


def members(samples: Iterable[EncodedSample | FailedClip]) -> list[dict[str, bytes]]:
    return [to_members(one) for one in samples if isinstance(one, EncodedSample)]


@pytest.mark.parametrize("batch_size", [2, 3, 5, 50])
def test_a_clip_does_not_depend_on_its_company(batch_size: int) -> None:
    media = [a_film(k) for k in range(5)]
    alone = members(encode_clips(clips(5), media, SHAPE, ENCODERS))
    together = members(encode_clips(clips(5), media, SHAPE, ENCODERS, batch_size))
    assert alone == together


def test_samples_are_asked_for_a_batch_at_a_time() -> None:
    taken: list[int] = []

    def films() -> list[ClipMedia]:
        taken.append(len(taken))
        return [a_film(len(taken))]

    media = (film for _ in range(6) for film in films())
    samples = encode_clips(clips(6), media, SHAPE, ENCODERS, 2)
    first = next(samples)
    assert len(taken) == 2
    assert isinstance(first, EncodedSample)
    assert first.key == clips(6)[0].clip_id
    assert all(getattr(first, name).dtype == np.float32 for name in ARRAYS)
    assert len(list(samples)) == 5


def test_a_clip_without_captions_is_named() -> None:
    bare = a_clip("b.mp4", 0.0, captions=None)
    with pytest.raises(UsageError, match=f"clip {bare.clip_id} has no captions"):
        list(encode_clips([a_clip("a.mp4", 0.0), bare], [a_film(0), a_film(1)], SHAPE, ENCODERS, 2))


def test_a_copy_stays_while_it_is_read() -> None:
    copies = RoomForOne()
    with held("s3://b/one.mp4", "1", copies) as one, held("s3://b/two.mp4", "2", copies) as two:
        assert (one.read_text(), two.read_text()) == ("1", "2")
        assert one.suffix == ".mp4"
        folder = one.parent
    assert list(folder.iterdir()) == copies.left


def bytes_then(error: OSError | None) -> Iterator[bytes]:
    yield bytes(2048)
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "over max_copies_gib = 1e-06); raise max_copies_gib"),
        (ConnectionResetError("reset by peer"), "reset by peer); run this again to go on"),
        (FileNotFoundError("no such key"), "no such key); run `avdata ingest` again"),
    ],
)
def test_a_source_that_cannot_be_fetched_says_the_way_out(
    monkeypatch: pytest.MonkeyPatch, error: OSError | None, said: str
) -> None:
    monkeypatch.setattr("avdata.pipeline.sources.copies.blocks", lambda _: bytes_then(error))
    monkeypatch.setattr("avdata.pipeline.sources.clips.exists", lambda _: True)
    copies = LocalCopies(1.0 if error else 1e-6)
    with pytest.raises(RunError) as caught:
        clip_media(a_clip("s3://b/film.mp4"), SHAPE, copies)
    assert str(caught.value).startswith("s3://b/film.mp4: cannot be read (read: ")
    assert str(caught.value).endswith(said)


def test_a_local_source_is_read_where_it_is() -> None:
    with held("/somewhere/film.mp4", "1", LocalCopies(1.0)) as path:
        assert path == Path("/somewhere/film.mp4")


@pytest.mark.parametrize("batch_size", [1, 2, 50])
@pytest.mark.parametrize("bad", [{0}, {1, 2}, {4}, {0, 1, 2, 3, 4}])
def test_a_clip_that_cannot_be_decoded_costs_itself(batch_size: int, bad: set[int]) -> None:
    error = MediaError("decode", "decoder_crashed", "exit -11")
    films = [a_film(k) for k in range(5)]
    media = [error if k in bad else films[k] for k in range(5)]
    found = list(encode_clips(clips(5), media, SHAPE, ENCODERS, batch_size))
    whole = list(encode_clips(clips(5), films, SHAPE, ENCODERS))
    assert members(found) == [one for k, one in enumerate(members(whole)) if k not in bad]
    lost = [one for one in found if isinstance(one, FailedClip)]
    why = ("decode", "decoder_crashed", "exit -11")
    wanted = [FailedClip(clips(5)[k].clip_id, *why) for k in sorted(bad)]
    assert lost == wanted
