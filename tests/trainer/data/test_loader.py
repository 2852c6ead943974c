import dataclasses
import resource
from itertools import islice
from pathlib import Path

import pytest
import torch

from avdata.encoders.spec import ClipShape, VideoSpec
from avdata.pipeline.shards.dataset import Dataset, read_sample
from avdata.trainer.data.config import ReadConfig
from avdata.trainer.data.feed import Feed
from avdata.trainer.data.stream import ShardStream
from avdata.trainer.loader import Loader, padded
from tests.trainer.data.loaders import (
    LONG,
    a_loader,
    equal,
    everything,
    flip,
    same,
    tensors,
    write,
)
from tests.trainer.shards import write_buckets
from tests.trainer.tiny import CLIP, SPECS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize("world", [2, 3, 4, 8])
def test_the_batches_of_all_ranks_are_the_batch_of_one(dataset: Dataset, world: int) -> None:
    """In other worlds than divide the batch, the last seats are repeats of weight 0."""
    ranks = [a_loader(dataset.root, rank, world).batches(0, 7) for rank in range(world)]
    for whole, *parts in zip(a_loader(dataset.root).batches(0, 7), *ranks, strict=True):
        joined = [torch.cat(some) for some in zip(*map(everything, parts), strict=True)]
        assert equal([one[: len(whole.share)] for one in joined], everything(whole))
        assert not joined[0][len(whole.share) :].any()
        assert torch.isclose(whole.share.sum(), torch.ones(()))
        assert len({len(part.share) for part in parts}) == 1


def test_global_batches_are_equal_while_the_world_changes(dataset: Dataset) -> None:
    whole = list(a_loader(dataset.root).batches(0, 10))
    step, found = 0, []
    for world, last in ((8, 2), (4, 4), (6, 5), (1, 8), (8, 10)):
        ranks = [a_loader(dataset.root, rank, world) for rank in range(world)]
        states = [one.state(step) for one in ranks]
        assert all(state == states[0] for state in states)
        step = ranks[0].step_of(states[-1])
        batches = zip(*(one.batches(step, last) for one in ranks), strict=True)
        for parts in batches:
            keys = [key for part in parts for key in part.keys][: len(whole[0].keys)]
            noise = torch.cat([part.video.noise for part in parts])[: len(keys)]
            found.append((keys, noise))
        step = last
    for batch, (keys, noise) in zip(whole, found, strict=True):
        assert batch.keys == keys
        assert torch.equal(batch.video.noise, noise)


def test_stopping_at_any_step_and_going_on_is_never_stopping(dataset: Dataset) -> None:
    """Also over the edge of an epoch, again and again, and with other threads."""
    first = a_loader(dataset.root)
    steps = first.plan.steps_before(1) + 2
    whole = list(first.batches(0, steps))
    for stop in range(steps):
        before = a_loader(dataset.root)
        assert all(map(same, before.batches(0, stop), whole[:stop]))
        after = a_loader(dataset.root, read=ReadConfig(threads=1 + stop % 3, ahead=stop % 4))
        step = after.step_of(before.state(stop))
        found = list(after.batches(step, steps))
        assert len(found) == steps - stop
        assert all(map(same, found, whole[stop:]))
    again, step = a_loader(dataset.root), 0
    for stop in range(steps):
        step = again.step_of(again.state(step))
        (batch,) = again.batches(step, step + 1)
        assert same(batch, whole[stop])
        step += 1


def test_batches_are_read_as_they_are_asked_for(dataset: Dataset) -> None:
    """Of an endless range the first ones come; and another epoch has other times."""
    loader = a_loader(dataset.root, caption_dropout=0.0)
    some = list(islice(loader.batches(0, 10**12), loader.plan.steps_before(2)))
    times = torch.cat([batch.u for batch in some])
    assert len(times.unique()) == len(times)


def test_the_twin_sees_the_same_pictures_noise_and_times(dataset: Dataset) -> None:
    both = (a_loader(dataset.root, mode=mode).batches(0, 5) for mode in ("t2av", "t2v"))
    for joint, twin in zip(*both, strict=True):
        assert joint.audio is not None
        assert twin.audio is None
        assert equal(tensors(joint.video), tensors(twin.video))
        assert torch.equal(joint.u, twin.u)


def test_a_batch_holds_what_was_written(dataset: Dataset) -> None:
    loader = a_loader(dataset.root, caption_dropout=0.0)
    entries = {entry.key: entry for entry in dataset.samples("train")}
    for step, batch in enumerate(loader.batches(0, 6)):
        assert batch.keys == loader.keys(step)
        moved = batch.to(torch.device("cpu"))
        assert moved.audio is not None
        for seat, key in enumerate(batch.keys):
            sample = read_sample(dataset.root, entries[key])
            for part, latents, text in (
                (moved.video, sample.video, sample.video_text),
                (moved.audio, sample.audio, sample.audio_text),
            ):
                assert torch.equal(part.latents[seat], torch.from_numpy(latents).float())
                written = torch.from_numpy(text).float()
                assert torch.equal(part.text[seat][part.text_mask[seat]], written)
                assert not part.text[seat][~part.text_mask[seat]].any()


def test_a_single_sample_is_read_as_in_a_batch(dataset: Dataset) -> None:
    loader = a_loader(dataset.root, caption_dropout=0.0)
    entries = {entry.key: entry for entry in dataset.samples("train")}
    (batch,) = loader.batches(1, 2)
    plan = loader.plan.batch(1)
    for seat, key in enumerate(batch.keys):
        place = (5, plan.epoch, plan.first_position + seat)
        video, audio = loader.reader.read(entries[key], place)
        assert batch.audio is not None
        found = [*tensors(video), *tensors(audio)]
        assert equal(found, [one[seat] for one in (*tensors(batch.video), *tensors(batch.audio))])


def test_captions_are_dropped_at_the_asked_share_and_in_both_modalities_at_once(
    dataset: Dataset,
) -> None:
    def captioned(dropout: float) -> list[bool]:
        found = []
        for batch in a_loader(dataset.root, caption_dropout=dropout).batches(0, 40):
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
    sides = (a_loader(dataset.root, caption_dropout=share).batches(0, 5) for share in (0.0, 1.0))
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


def test_long_captions_are_cut(dataset: Dataset) -> None:
    loader = a_loader(dataset.root, caption_dropout=0.0)
    short = dataclasses.replace(loader, feed=shortened(loader))
    for whole, cut in zip(loader.batches(0, 6), short.batches(0, 6), strict=True):
        assert equal(
            [cut.video.text, cut.video.text_mask],
            [whole.video.text[:, :2], whole.video.text_mask[:, :2]],
        )
        assert torch.equal(cut.video.latents, whole.video.latents)


def shortened(loader: Loader) -> Feed:
    return dataclasses.replace(loader.feed, longest={"video_text": 2, "audio_text": 2})


def test_the_twin_reads_no_sound(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    before = list(a_loader(dataset.root, mode="t2v").batches(0, 2))
    flip(dataset, "audio.npy")
    flip(dataset, "audio_text.npy")
    assert all(map(same, before, a_loader(dataset.root, mode="t2v").batches(0, 2)))


def test_a_batch_that_is_kept_is_not_written_over(dataset: Dataset) -> None:
    kept = list(a_loader(dataset.root).batches(0, 12))
    assert all(map(same, kept, a_loader(dataset.root).batches(0, 12)))
    part = next(a_loader(dataset.root).batches(0, 1)).video.latents[1]
    assert torch.equal(part, kept[0].video.latents[1])


@pytest.mark.parametrize("threads", [1, 3])
def test_every_seat_is_read_once(dataset: Dataset, threads: int) -> None:
    loader = a_loader(dataset.root, read=ReadConfig(threads=threads))
    seats = sum(len(batch.keys) for batch in loader.batches(0, 6))
    assert loader.metrics()["samples"] == seats


def test_memory_is_used_again_however_long_it_goes_on(dataset: Dataset) -> None:
    loader = a_loader(dataset.root, read=ReadConfig(threads=2, ahead=2))
    for _ in loader.batches(0, 60):
        pass
    assert loader.feed.ring.num_blocks <= 2 * (2 + 2)


def test_memory_does_not_grow_over_epochs(tmp_path: Path) -> None:
    specs = dataclasses.replace(SPECS, video=VideoSpec("v", "0", channels=48))
    large = ClipShape(num_frames=33, fps=16, height=256, width=256)
    stream = ShardStream(write_buckets(tmp_path, [(7, large)], specs).root, batch_size=4)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    for number in range(40):
        for _ in stream:
            pass
        if number == 5:
            before = resident()
    read = stream.source.counters.snapshot()["bytes"]
    assert resident() - before < 0.2 * read


def test_held_out_samples_are_of_all_buckets_and_fewer_are_among_more(
    tmp_path: Path,
) -> None:
    loader = a_loader(write_buckets(tmp_path, [(20, CLIP), (20, LONG)]).root)
    val = {entry.key: entry for entry in loader.source.dataset.samples("val")}
    some = loader.held_out(len(val) // 2)
    assert {entry.bucket for entry in some} == {entry.bucket for entry in val.values()}
    assert all(entry == val[entry.key] for entry in some)
    assert loader.held_out(2) == some[:2]
    assert {entry.key for entry in loader.held_out(10**6)} == set(val)
