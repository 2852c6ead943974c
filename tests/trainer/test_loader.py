import dataclasses
from itertools import islice
from pathlib import Path

import pytest
import torch

from avdata.errors import CorruptShard
from avdata.pipeline.shards.dataset import Dataset, read_sample
from avdata.trainer.batch import Batch
from avdata.trainer.flow import Clean
from avdata.trainer.loader import Loader, Reader, padded
from avdata.trainer.model.config import Mode
from avdata.trainer.plan import Plan
from tests.trainer.shards import write_shards
from tests.trainer.tiny import CONFIG


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def a_loader(dataset: Dataset, mode: Mode = "t2av", dropout: float = 0.3) -> Loader:
    entries = dataset.samples("train")
    plan = Plan([entry.bucket for entry in entries], batch_size=4, seed=5)
    return Loader(Reader(dataset, CONFIG, mode), entries, plan, 5, dropout, rank=0, world=1)


def rank_of(loader: Loader, rank: int, world: int) -> Loader:
    return dataclasses.replace(loader, rank=rank, world=world)


def tensors(part: Clean | None) -> list[torch.Tensor]:
    return [] if part is None else [part.latents, part.noise, part.text, part.text_mask]


def everything(batch: Batch) -> list[torch.Tensor]:
    return [batch.share, batch.u, *tensors(batch.video), *tensors(batch.audio)]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def flip(dataset: Dataset, member: str) -> None:
    """One bit of that member of every training sample."""
    for entry in dataset.samples("train"):
        path = dataset.root / entry.tar
        data = bytearray(path.read_bytes())
        data[entry.members[member].offset + entry.members[member].length - 1] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("world", [2, 4])
def test_the_batches_of_all_ranks_are_the_batch_of_one(dataset: Dataset, world: int) -> None:
    loader = a_loader(dataset)
    shares = [rank_of(loader, rank, world).batches(0, 7) for rank in range(world)]
    for whole, *parts in zip(loader.batches(0, 7), *shares, strict=True):
        joined = [torch.cat(some) for some in zip(*map(everything, parts), strict=True)]
        assert equal(joined, everything(whole))


def test_starting_at_any_step_gives_the_tail_of_the_whole(dataset: Dataset) -> None:
    loader = a_loader(dataset)
    whole = list(loader.batches(0, 7))
    for first in (1, 3, 6):
        tail = list(loader.batches(first, 7))
        assert len(tail) == 7 - first
        assert all(
            equal(everything(a), everything(b)) for a, b in zip(whole[first:], tail, strict=True)
        )
    assert list(loader.batches(7, 7)) == []


def test_threads_and_reading_ahead_change_nothing(dataset: Dataset) -> None:
    loader = a_loader(dataset)
    other = dataclasses.replace(loader, threads=1, read_ahead=0)
    for a, b in zip(loader.batches(0, 5), other.batches(0, 5), strict=True):
        assert equal(everything(a), everything(b))


def test_batches_are_read_as_they_are_asked_for(dataset: Dataset) -> None:
    """Of an endless range the first ones come; and another epoch has other noise."""
    loader = a_loader(dataset, dropout=0.0)
    some = list(islice(loader.batches(0, 10**12), 2 * loader.plan.steps_per_epoch))
    times = torch.cat([batch.u for batch in some])
    assert len(times.unique()) == len(times)


def test_the_twin_sees_the_same_pictures_noise_and_times(dataset: Dataset) -> None:
    both = a_loader(dataset, "t2av").batches(0, 5), a_loader(dataset, "t2v").batches(0, 5)
    for joint, twin in zip(*both, strict=True):
        assert joint.audio is not None
        assert twin.audio is None
        assert equal(tensors(joint.video), tensors(twin.video))
        assert torch.equal(joint.u, twin.u)


def test_a_seat_holds_what_was_written(dataset: Dataset) -> None:
    loader = a_loader(dataset, dropout=0.0)
    (batch,) = loader.batches(2, 3)
    assert batch.audio is not None
    for seat, place in enumerate(loader.plan.batch(2)):
        sample = read_sample(dataset.root, loader.entries[place.index])
        for part, latents, text in (
            (batch.video, sample.video, sample.video_text),
            (batch.audio, sample.audio, sample.audio_text),
        ):
            assert torch.equal(part.latents[seat], torch.from_numpy(latents).float())
            written = torch.from_numpy(text).float()
            assert torch.equal(part.text[seat][part.text_mask[seat]], written)
            assert not part.text[seat][~part.text_mask[seat]].any()


def test_captions_are_dropped_at_the_asked_share_and_in_both_modalities_at_once(
    dataset: Dataset,
) -> None:
    def captioned(dropout: float) -> list[bool]:
        found = []
        for batch in a_loader(dataset, dropout=dropout).batches(0, 40):
            assert batch.audio is not None
            seen, heard = batch.video.text_mask.any(1), batch.audio.text_mask.any(1)
            assert torch.equal(seen, heard)
            assert not batch.video.text[~seen].any()
            assert not batch.audio.text[~heard].any()
            found += seen.tolist()
        return found

    assert all(captioned(0.0))
    assert not any(captioned(1.0))
    assert 0.6 < sum(captioned(0.25)) / 160 < 0.9


def test_dropout_shifts_neither_times_nor_noise(dataset: Dataset) -> None:
    sides = (a_loader(dataset, dropout=share).batches(0, 5) for share in (0.0, 1.0))
    for full, bare in zip(*sides, strict=True):
        assert torch.equal(full.u, bare.u)
        assert torch.equal(full.video.noise, bare.video.noise)


@pytest.mark.parametrize(("tokens", "longest"), [(2, 5), (5, 5), (7, 5)])
def test_captions_are_cut_or_padded_and_the_mask_says_which(tokens: int, longest: int) -> None:
    text = torch.randn(tokens, 3)
    out, mask = padded(text, longest, captioned=True)
    assert out.shape == (longest, 3)
    assert torch.equal(out[mask], text[:longest])
    assert not out[~mask].any()


@pytest.mark.parametrize("member", ["video.npy", "audio_text.npy"])
def test_a_changed_byte_is_never_trained_on(tmp_path: Path, member: str) -> None:
    dataset = write_shards(tmp_path)
    flip(dataset, member)
    with pytest.raises(CorruptShard, match=rf"train-.*\.tar: .*\.{member} .*avdata encode"):
        list(a_loader(dataset).batches(0, 1))


def test_the_twin_reads_no_sound(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path)
    before = list(a_loader(dataset, "t2v").batches(0, 2))
    flip(dataset, "audio.npy")
    flip(dataset, "audio_text.npy")
    after = list(a_loader(dataset, "t2v").batches(0, 2))
    assert all(equal(everything(a), everything(b)) for a, b in zip(before, after, strict=True))


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path)
    for tar in tmp_path.glob("*/train-*.tar"):
        tar.unlink()
    with pytest.raises(CorruptShard, match=r"\.tar: missing"):
        list(a_loader(dataset).batches(0, 1))
