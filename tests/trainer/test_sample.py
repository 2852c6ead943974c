import dataclasses
import json
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape
from avdata.errors import SpecMismatch, UsageError
from avdata.jobs.sample import prompts_of, sample
from avdata.pipeline.shards.dataset import read_sample
from avdata.trainer.config import TrainConfig
from avdata.trainer.flow import SamplerConfig
from avdata.trainer.model.config import Mode
from avdata.trainer.run import Run, open_run, prepare
from avdata.trainer.sample import (
    Generator,
    Prompt,
    open_generator,
    require_guided,
    write_sample,
)
from avdata.trainer.train import train
from tests.trainer.shards import write_buckets, write_shards
from tests.trainer.tiny import CONFIG

CPU = torch.device("cpu")
SHAPE = ClipShape(num_frames=17, height=64, width=64)
QUICK = SamplerConfig(steps=2)
UNGUIDED = SamplerConfig(steps=2, guidance_video=1.0, guidance_audio=1.0)
PROMPT = Prompt("a ball falls", "a dull hit", seed=3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Mode, Run]:
    """Both modes, trained for two steps on latents shaped as the default encoders give them."""
    root = tmp_path_factory.mktemp("runs")
    specs = EncodersConfig().specs()
    shards = write_shards(root / "shards", num_sources=3, specs=specs, shape=SHAPE)
    found: dict[Mode, Run] = {}
    modes: tuple[Mode, ...] = ("t2av", "t2v")
    for mode in modes:
        config = TrainConfig(
            mode=mode, model=CONFIG, steps=2, batch_size=2, val_samples=1, device="cpu"
        )
        found[mode] = prepare(root / mode, shards.root, config)
        train(found[mode])
    return found


@pytest.fixture(scope="module")
def joint(runs: dict[Mode, Run]) -> Generator:
    return open_generator(runs["t2av"], CPU)


def lengths(path: Path) -> tuple[list[float], list[float]]:
    """Seconds of each video and of each audio stream, as decoded."""
    with av.open(str(path)) as container:
        shown = [
            sum(1 for _ in container.decode(stream)) / float(stream.average_rate or 1)
            for stream in container.streams.video
        ]
    with av.open(str(path)) as container:
        heard = [
            sum(frame.samples for frame in container.decode(stream)) / stream.rate
            for stream in container.streams.audio
        ]
    return shown, heard


@pytest.mark.parametrize("mode", ["t2av", "t2v"])
def test_a_sample_has_one_picture_and_one_sound_of_equal_length(
    runs: dict[Mode, Run], mode: Mode, tmp_path: Path
) -> None:
    path = write_sample(open_generator(runs[mode], CPU), PROMPT, QUICK, tmp_path)
    (shown,), (heard,) = lengths(path)
    frame, packet = 1 / SHAPE.fps, 1024 / SHAPE.sample_rate
    assert abs(shown - heard) <= frame + packet
    assert shown == pytest.approx(SHAPE.seconds, abs=2 * frame)
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["captions"] == {"video": PROMPT.video, "audio": PROMPT.audio}
    assert (told["mode"], told["step"], told["seed"]) == (mode, 2, PROMPT.seed)


def test_a_twin_that_reads_the_audio_caption_hears_nothing_but_follows_it(
    runs: dict[Mode, Run], tmp_path: Path
) -> None:
    model = dataclasses.replace(CONFIG, audio_caption=True)
    config = TrainConfig(
        mode="t2v", model=model, steps=1, batch_size=2, val_samples=1, device="cpu"
    )
    run = prepare(tmp_path / "twin", runs["t2v"].shards, config)
    train(run)
    generator = open_generator(run, CPU)
    one = generator.make(PROMPT, QUICK)
    other = generator.make(dataclasses.replace(PROMPT, audio="a dog barks"), QUICK)
    assert not one.samples.any()
    assert (one.frames != other.frames).any()


def test_the_same_prompt_and_seed_give_the_same_bytes(joint: Generator, tmp_path: Path) -> None:
    again = open_generator(joint.run, CPU)
    one = write_sample(joint, PROMPT, QUICK, tmp_path / "one")
    two = write_sample(again, PROMPT, QUICK, tmp_path / "two")
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


def test_seed_and_captions_make_the_sample(joint: Generator) -> None:
    made = joint.make(PROMPT, QUICK)
    assert (joint.make(dataclasses.replace(PROMPT, seed=4), QUICK).frames != made.frames).any()
    assert (
        joint.make(dataclasses.replace(PROMPT, video="a cat"), QUICK).frames != made.frames
    ).any()
    heard = joint.make(dataclasses.replace(PROMPT, audio="a purr"), QUICK)
    assert (heard.samples != made.samples).any()


def test_other_prompts_never_overwrite_a_sample(joint: Generator, tmp_path: Path) -> None:
    prompts = [PROMPT, dataclasses.replace(PROMPT, seed=4), dataclasses.replace(PROMPT, audio="")]
    assert len({write_sample(joint, one, QUICK, tmp_path) for one in prompts}) == 3


@pytest.mark.parametrize("role", ["video", "audio", "video_text", "audio_text"])
def test_latents_of_other_encoders_are_never_decoded(
    runs: dict[Mode, Run], role: str, tmp_path: Path
) -> None:
    plain = json.loads((runs["t2av"].root / "run.json").read_text())
    plain["specs"][role]["digest"] = "another"
    (tmp_path / "run.json").write_text(json.dumps(plain))
    with pytest.raises(SpecMismatch, match=f"{role} encoder digest .*another"):
        open_generator(open_run(tmp_path), CPU)


def test_a_run_without_a_checkpoint_says_so(runs: dict[Mode, Run], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((runs["t2av"].root / "run.json").read_bytes())
    with pytest.raises(UsageError, match="no checkpoint"):
        open_generator(open_run(tmp_path), CPU)


def test_without_prompts_the_captions_of_held_out_clips_serve(runs: dict[Mode, Run]) -> None:
    prompts = prompts_of(runs["t2av"].root, 2, seed=7)
    told = [(one.video, one.audio, one.seed) for one in prompts]
    assert told == [("a ball", "a hit", 7), ("a ball", "a hit", 8)]


@pytest.mark.parametrize("mode", ["t2av", "t2v"])
def test_beside_a_sample_of_a_clips_captions_lies_the_clip(
    runs: dict[Mode, Run], mode: Mode, tmp_path: Path
) -> None:
    generator = open_generator(runs[mode], CPU)
    (prompt,) = prompts_of(runs[mode].root, 1, seed=0)
    path = write_sample(generator, prompt, QUICK, tmp_path)
    told = json.loads(path.with_suffix(".json").read_text())
    true = tmp_path / told["true"]
    assert lengths(true) == lengths(path)
    assert prompt.clip is not None
    media = generator.true(prompt.clip)
    latents = torch.from_numpy(read_sample(runs[mode].shards, prompt.clip).video)[None].float()
    whole = generator.encoders.video.decode(latents)[0].numpy()
    assert (media.frames == whole[: len(media.frames)]).all()
    # A twin has learned no sound, and its audio encoder need not be there.
    assert media.samples.any() == (mode == "t2av")
    assert (
        json.loads(
            write_sample(generator, PROMPT, QUICK, tmp_path).with_suffix(".json").read_text()
        )["true"]
        is None
    )


def test_a_negative_caption_is_what_guidance_leads_away_from(joint: Generator) -> None:
    plain = joint.make(PROMPT, QUICK)
    other = joint.make(dataclasses.replace(PROMPT, negative_video="a cat"), QUICK)
    assert (other.frames != plain.frames).any()
    quieter = joint.make(dataclasses.replace(PROMPT, negative_audio="a purr"), QUICK)
    assert (quieter.samples != plain.samples).any()
    # Away from its own captions each branch is the other: as without guidance.
    own = dataclasses.replace(PROMPT, negative_video=PROMPT.video, negative_audio=PROMPT.audio)
    alone = joint.make(PROMPT, UNGUIDED)
    difference = joint.make(own, QUICK).frames.astype(int) - alone.frames
    assert abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("mode", "negative", "config", "message"),
    [
        ("t2v", {"negative_audio": "a purr"}, QUICK, "reads no audio caption.*a purr.*leave"),
        ("t2v", {"negative_video": "a cat"}, UNGUIDED, "guidance_video = 1.0 is no .*a cat"),
        ("t2av", {"negative_audio": "a purr"}, UNGUIDED, "guidance_audio = 1.0 is no .*a purr"),
    ],
)
def test_a_negative_caption_that_nothing_leads_away_from_is_refused(
    runs: dict[Mode, Run],
    mode: Mode,
    negative: dict[str, Any],
    config: SamplerConfig,
    message: str,
) -> None:
    prompt = dataclasses.replace(PROMPT, **negative)
    with pytest.raises(UsageError, match=message):
        sample(runs[mode].root, [prompt], config, "cpu")
    with pytest.raises(UsageError, match=message):
        open_generator(runs[mode], CPU).make(prompt, config)
    # One modality that is guided is enough: the negative branch is joint.
    require_guided(runs["t2av"], [prompt], dataclasses.replace(UNGUIDED, guidance_audio=2.0))


def test_latents_that_the_model_cannot_cut_are_refused_before_training(tmp_path: Path) -> None:
    specs = EncodersConfig().specs()
    odd = ClipShape(num_frames=17, height=48, width=64)
    shards = write_shards(tmp_path / "shards", num_sources=3, specs=specs, shape=odd)
    config = TrainConfig(model=CONFIG, steps=1, batch_size=2, device="cpu")
    with pytest.raises(UsageError, match="height 48: this model takes multiples of 32"):
        prepare(tmp_path / "run", shards.root, config)
    even = dataclasses.replace(odd, height=64)
    several = write_buckets(tmp_path / "several", [(3, even), (3, odd)], specs)
    with pytest.raises(UsageError, match="height 48: this model takes multiples of 32"):
        prepare(tmp_path / "other", several.root, config)
