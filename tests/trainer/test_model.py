import dataclasses

import pytest
import torch
from torch import Tensor

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape, tau
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import ModelConfig, Rope, preset
from avdata.trainer.model.joint_block import JointBlock
from avdata.trainer.model.modality import Conditioned, Velocity
from avdata.trainer.model.rope import audio_positions, rotate, rotation, video_positions
from tests.trainer.tiny import CLIP, CONFIG, SPECS, conditioning, duration_token, inputs


def model(config: ModelConfig = CONFIG) -> AVFullDiT:
    return AVFullDiT.build(config, SPECS, CLIP, "t2av", seed=0)


def test_the_video_tower_alone_is_wans_transformer() -> None:
    twin = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2v", seed=0)
    video, _, t = inputs()
    ours = twin(video, None, t).video
    theirs = twin.video.wan(video.latents, t * 1000, video.text, return_dict=False)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_audio_tower_alone_is_fluxs_transformer() -> None:
    tower = model(dataclasses.replace(CONFIG, num_joint=0)).audio
    _, audio, t = inputs()
    full = dataclasses.replace(audio, text_mask=torch.ones_like(audio.text_mask))
    scale = tau(SPECS.video, SPECS.audio, CLIP.fps)
    state = tower.begin(full, t, scale)
    ours = tower.end(tower.early(state))
    length = audio.latents.shape[-1]
    text, pooled = conditioning(tower, audio)
    theirs = tower.flux(
        hidden_states=audio.latents.transpose(1, 2),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=t,
        img_ids=(torch.arange(length) / scale)[:, None].expand(length, 3),
        txt_ids=torch.zeros(text.shape[1], 3),
        return_dict=False,
    )[0].transpose(1, 2)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_duration_is_a_token_of_learned_fourier_features() -> None:
    """Of its share of 30 s; what is longer is 30 s (arXiv 2412.21037)."""
    tower = model().audio
    seconds = torch.tensor([0.0, 0.5, 2.0, 12.0, 29.0, 30.0, 45.0])
    shares = seconds.clamp(max=30) / 30
    torch.testing.assert_close(
        tower.duration(seconds), duration_token(tower, shares), atol=1e-5, rtol=0
    )


def test_without_cross_attention_a_joint_layer_is_both_pretrained_layers() -> None:
    whole = model(dataclasses.replace(CONFIG, new_output_std=0.0))
    video, audio, t = inputs()
    scale = whole.tau
    seen, heard = whole.video.begin(video, t, scale), whole.audio.begin(audio, t, scale)
    wan, flux = whole.video.wan.blocks[0], whole.audio.flux.single_transformer_blocks[0]
    alone = wan(seen.tokens, seen.text, seen.time_parts, seen.turned.as_wan())
    text, sound = flux(
        heard.audio,
        heard.text,
        heard.time,
        heard.turned.as_pair(),
        {"attention_mask": heard.mask},
    )
    n, m = seen.tokens.shape[1], heard.mask.shape[-1]
    apart = torch.zeros(2, 1, n + m, n + m, dtype=torch.bool)
    apart[:, :, :n, :n] = True
    apart[:, :, n:, n:] = heard.mask
    joint = whole.joints[0]
    assert isinstance(joint, JointBlock)
    out = joint(wan, flux, seen, heard, apart)
    torch.testing.assert_close(out.video, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.audio, sound, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.audio_text, text, atol=1e-5, rtol=0)


def test_information_flows_both_ways() -> None:
    whole = model()
    video, audio, t = inputs()
    before = whole(video, audio, t)
    other = whole(video, dataclasses.replace(audio, latents=audio.latents + 1), t)
    assert (other.video - before.video).abs().max() > 1e-4
    other = whole(dataclasses.replace(video, latents=video.latents + 1), audio, t)
    assert (other.audio - before.audio).abs().max() > 1e-4


def test_the_twin_starts_from_the_same_video_weights() -> None:
    joint, twin = model(), AVFullDiT.build(CONFIG, SPECS, CLIP, "t2v", seed=0)
    shared = twin.state_dict()
    assert set(shared) == {name for name in joint.state_dict() if name.startswith("video.")}
    for name, value in shared.items():
        assert torch.equal(value, joint.state_dict()[name]), name


def test_every_parameter_learns() -> None:
    whole = model()
    out = whole(*inputs())
    (out.video.square().mean() + out.audio.square().mean()).backward()
    idle = [name for name, p in whole.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_padding_of_the_audio_caption_changes_nothing() -> None:
    whole = model()
    video, audio, t = inputs()
    longer = Conditioned(
        audio.latents,
        torch.cat([audio.text, torch.randn(2, 4, 12)], dim=1),
        torch.cat([audio.text_mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1),
    )
    short, long = whole(video, audio, t), whole(video, longer, t)
    torch.testing.assert_close(short.video, long.video, atol=1e-5, rtol=0)
    torch.testing.assert_close(short.audio, long.audio, atol=1e-5, rtol=0)


def test_a_batch_is_its_samples_one_by_one() -> None:
    whole = model()
    video, audio, t = inputs()
    together = whole(video, audio, t)

    def only(part: Conditioned, k: int) -> Conditioned:
        return Conditioned(*(x[k : k + 1] for x in (part.latents, part.text, part.text_mask)))

    for k in range(2):
        alone = whole(only(video, k), only(audio, k), t[k : k + 1])
        torch.testing.assert_close(alone.video, together.video[k : k + 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.audio, together.audio[k : k + 1], atol=1e-5, rtol=0)


def test_bf16_autocast_agrees_with_float32() -> None:
    whole = model()
    video, audio, t = inputs()
    exact = whole(video, audio, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = whole(video, audio, t)
    assert (rough.video - exact.video).abs().mean() < 0.015 * exact.video.abs().mean()
    assert (rough.audio - exact.audio).abs().mean() < 0.015 * exact.audio.abs().mean()


@pytest.mark.parametrize(
    ("rope", "aligned"), [("sync", True), ("expand_video", True), ("vanilla", False)]
)
def test_sound_and_picture_of_one_moment_have_one_position_unless_positions_are_vanilla(
    rope: Rope, aligned: bool
) -> None:
    """A latent frame later in video is tau latents later in audio."""
    scale = tau(SPECS.video, SPECS.audio, CLIP.fps)
    device = torch.device("cpu")
    picture = video_positions((5, 1, 1), rope, scale, device)[:, 0]
    sound = audio_positions(0, 40, rope, scale, device)[:, 0]
    seconds_video = picture.new_tensor(range(5)) * SPECS.video.latent_seconds(CLIP.fps)
    seconds_audio = sound.new_tensor(range(40)) * SPECS.audio.latent_seconds()
    rate_video = (picture[1:] / seconds_video[1:]).mean()
    rate_audio = (sound[1:] / seconds_audio[1:]).mean()
    assert torch.isclose(rate_video, rate_audio, rtol=1e-5).item() is aligned


def test_parts_that_are_not_of_one_batch_are_refused_where_shapes_are_checked() -> None:
    video, audio, _ = inputs()
    for wrong in (
        {"latents": video.latents[:1]},
        {"latents": audio.text[..., 0]},
        {"text_mask": video.text_mask[:, :2]},
        {"text_mask": video.text_mask.float()},
    ):
        with pytest.raises(TypeError):
            dataclasses.replace(video, **wrong)
    with pytest.raises(TypeError):
        Velocity(audio.latents, video.latents)


def test_attention_depends_on_distance_only() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(p: float, r: float) -> Tensor:
        at, by = (rotation(torch.full((1, 1), x), (16,)) for x in (p, r))
        return (rotate(q, at) * rotate(k, by)).sum()

    torch.testing.assert_close(score(7.25, 3.5), score(107.25, 103.5), atol=1e-4, rtol=1e-4)


def test_new_parameters_per_joint_layer_at_the_papers_size() -> None:
    config = preset("wan5b-tangoflux")
    with torch.device("meta"):
        joint = JointBlock(config)
    weights = sum(p.numel() for name, p in joint.named_parameters() if name.endswith("weight"))
    assert weights == 4 * config.audio_width * (config.video_width - config.audio_width)
    assert weights == 8_388_608  # arXiv 2512.02457


def test_the_demo_fits_the_default_encoders() -> None:
    specs = EncodersConfig().specs()
    with torch.device("meta"):
        whole = AVFullDiT(preset("demo"), specs, ClipShape(), "t2av")
    assert sum(p.numel() for p in whole.parameters()) < 10_000_000
