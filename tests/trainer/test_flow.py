import dataclasses
from typing import Any

import pytest
import torch

from avdata.trainer.flow import Clean, SamplerConfig, flow_loss, own_times, sample, times
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.modality import Conditioned, Velocity
from tests.trainer.tiny import CLIP, CONFIG, SPECS, inputs


def clean(condition: Conditioned, seed: int) -> Clean:
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(condition.latents.shape, generator=g)
    return Clean(condition.latents, noise, condition.text, condition.text_mask)


def head(part: Clean, k: slice) -> Clean:
    return Clean(part.latents[k], part.noise[k], part.text[k], part.text_mask[k])


def test_the_loss_of_a_batch_is_the_sum_over_its_parts() -> None:
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, t = inputs(batch=4)
    v, a, w = clean(video, 1), clean(audio, 2), torch.full((4,), 0.25)
    whole = flow_loss(model, v, a, t, w)
    halves = [
        flow_loss(model, head(v, k), head(a, k), t[k], w[k]) for k in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(whole.total, halves[0].total + halves[1].total)


def test_a_sample_of_share_zero_counts_for_nothing() -> None:
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, t = inputs(batch=3)
    v, a = clean(video, 1), clean(audio, 2)
    padded = flow_loss(model, v, a, t, torch.tensor([0.5, 0.5, 0.0]))
    k = slice(0, 2)
    alone = flow_loss(model, head(v, k), head(a, k), t[k], torch.full((2,), 0.5))
    torch.testing.assert_close(padded.total, alone.total)


def test_the_true_velocity_leads_from_noise_to_data() -> None:
    """Of a straight path, steps of any number are exact, with or without guidance."""
    video, audio, _ = inputs()
    data, sound = torch.randn_like(video.latents), torch.randn_like(audio.latents)

    def true(seen: Conditioned, heard: Conditioned | None, t: torch.Tensor) -> Velocity:
        assert heard is not None
        at = t.view(-1, 1, 1, 1, 1)
        return Velocity((seen.latents - data) / at, (heard.latents - sound) / at[..., 0, 0])

    for config in (
        SamplerConfig(steps=1),
        SamplerConfig(steps=7),
        SamplerConfig(steps=7, shift=5.0),
        SamplerConfig(steps=7, solver="unipc"),
        SamplerConfig(steps=7, shift=5.0, solver="unipc"),
    ):
        found = sample(true, video, audio, config)
        torch.testing.assert_close(found.video, data, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.audio, sound, atol=1e-4, rtol=1e-4)


def test_the_velocity_that_sampling_follows_is_the_one_that_is_learned() -> None:
    """At any time, the same or one each, its loss is nothing."""
    video, audio, t = inputs()
    v, a, w = clean(video, 1), clean(audio, 2), torch.full((2,), 0.5)

    def true(seen: Conditioned, heard: Conditioned | None, t: torch.Tensor) -> Velocity:
        assert heard is not None
        first, second = (t, t) if t.ndim == 1 else (t[:, 0], t[:, 1])
        return Velocity(
            (seen.latents - v.latents) / first.view(-1, 1, 1, 1, 1),
            (heard.latents - a.latents) / second.view(-1, 1, 1),
        )

    for at in (t, torch.stack([t, 1 - t], dim=1)):
        losses = flow_loss(true, v, a, at.clamp(0.1, 0.9), w)
        assert losses.audio is not None
        assert losses.video < 1e-8
        assert losses.audio < 1e-8


def test_unipc_follows_a_bent_path_better_than_euler() -> None:
    """Of data N(0, s^2) the velocity and where it leads are known."""
    video, audio, _ = inputs()
    spread = 0.3

    def gaussian(seen: Conditioned, heard: Conditioned | None, t: torch.Tensor) -> Velocity:
        assert heard is not None
        at = float(t[0])
        pull = (at - (1 - at) * spread**2) / (at**2 + (1 - at) ** 2 * spread**2)
        return Velocity(seen.latents * pull, heard.latents * pull)

    def error(config: SamplerConfig) -> float:
        found = sample(gaussian, video, audio, config)
        assert found.audio is not None
        off = [found.video - spread * video.latents, found.audio - spread * audio.latents]
        return max(float(one.abs().max()) for one in off)

    for steps in (20, 40):
        unipc = error(SamplerConfig(steps=steps, solver="unipc"))
        assert unipc < 0.25 * error(SamplerConfig(steps=steps))


def test_negative_captions_take_the_place_of_none() -> None:
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, _ = inputs()
    config = SamplerConfig(steps=2)
    plain = sample(model, video, audio, config)
    # Guided away from its own caption, each step is the positive branch.
    own = sample(model, video, audio, config, (video, audio))
    unguided = SamplerConfig(steps=2, guidance_video=1.0, guidance_audio=1.0)
    alone = sample(model, video, audio, unguided)
    torch.testing.assert_close(own.video, alone.video, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.audio, alone.audio, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain.video, alone.video, atol=1e-3)


def test_each_modality_has_its_own_guidance() -> None:
    """In the first step: later ones see what both have become."""
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, _ = inputs()
    one = sample(model, video, audio, SamplerConfig(steps=1, guidance_audio=1.0))
    other = sample(model, video, audio, SamplerConfig(steps=1, guidance_audio=9.0))
    assert one.audio is not None
    assert other.audio is not None
    assert torch.equal(one.video, other.video)
    assert not torch.allclose(one.audio, other.audio, atol=1e-3)


def test_guidance_goes_from_the_negative_branch_through_the_positive_one() -> None:
    """v = negative + scale (positive - negative), for each modality: here 0 + scale (1 - 0)."""
    video, audio, _ = inputs()

    def captioned(seen: Conditioned, heard: Conditioned | None, _t: torch.Tensor) -> Velocity:
        assert heard is not None
        return Velocity(
            torch.full_like(seen.latents, float(seen.text_mask.any())),
            torch.full_like(heard.latents, float(heard.text_mask.any())),
        )

    config = SamplerConfig(steps=1, guidance_video=5.0, guidance_audio=3.0)
    found = sample(captioned, video, audio, config)
    torch.testing.assert_close(found.video, video.latents - 5.0)
    torch.testing.assert_close(found.audio, audio.latents - 3.0)


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_a_shift_moves_the_times_of_sampling_as_it_moves_those_of_training(solver: Any) -> None:
    """t to s t / (1 + (s - 1) t); without one, times fall evenly from noise to data."""
    video, audio, _ = inputs()

    def asked(shift: float) -> torch.Tensor:
        at: list[torch.Tensor] = []

        def still(seen: Conditioned, heard: Conditioned | None, t: torch.Tensor) -> Velocity:
            at.append(t[0])
            return Velocity(seen.latents * 0, None if heard is None else heard.latents * 0)

        config = SamplerConfig(8, shift, 1.0, 1.0, solver)
        sample(still, video, audio, config)
        return torch.stack(at)

    even = asked(1.0)
    # UniPC begins one thousandth below pure noise.
    torch.testing.assert_close(even, torch.linspace(1, 1 / 8, 8), atol=2e-3, rtol=0)
    torch.testing.assert_close(asked(5.0), 5 * even / (1 + 4 * even), atol=1e-5, rtol=0)


def test_the_twin_that_reads_the_audio_caption_is_sampled_without_sound() -> None:
    config = dataclasses.replace(CONFIG, audio_caption=True)
    model = AVFullDiT.build(config, SPECS, CLIP, "t2v", seed=0)
    video, audio, _ = inputs()
    found = sample(model, video, audio, SamplerConfig(steps=2))
    assert found.audio is None
    assert found.video.shape == video.latents.shape


def test_own_times_are_uniform_independent_and_leave_video_its_own() -> None:
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    both = own_times(u)
    assert torch.equal(both[:, 0], u)
    assert ((both > 0) & (both < 1)).all()
    counts = torch.histogramdd(both, [10, 10], range=[0.0, 1.0, 0.0, 1.0]).hist
    # Of 2000 a cell, five standard deviations.
    assert (counts - 2000).abs().max() < 5 * 2000**0.5
    t = times(both)
    assert torch.equal(t[:, 0], times(u))


def test_without_guidance_the_model_is_asked_once_a_step() -> None:
    whole = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, _ = inputs()
    asked: list[float] = []

    def counted(seen: Conditioned, heard: Conditioned | None, t: torch.Tensor) -> Velocity:
        asked.append(float(t[0]))
        made: Velocity = whole(seen, heard, t)
        return made

    counts: list[int] = []
    for scales in ((1.0, 1.0), (1.0, 4.5), (5.0, 1.0)):
        sample(counted, video, audio, SamplerConfig(3, 1.0, *scales))
        counts.append(len(asked) - sum(counts))
    assert counts == [3, 6, 6]


def test_both_branches_are_joint_and_start_from_the_same_noise() -> None:
    """Sound alone retold in the negative branch changes the picture, too."""
    whole = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, _ = inputs()
    other = dataclasses.replace(audio, text=audio.text.roll(1, dims=0))
    config = SamplerConfig(steps=1)
    own = sample(whole, video, audio, config, (video, audio))
    retold = sample(whole, video, audio, config, (video, other))
    assert not torch.allclose(own.video, retold.video, atol=1e-4)


def test_guidance_one_ignores_the_negative_branch() -> None:
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2v", seed=0)
    video, _, t = inputs()
    out = sample(model, video, None, SamplerConfig(steps=1, guidance_video=1.0))
    t = torch.ones_like(t)
    step = video.latents - model(video, None, t).video
    torch.testing.assert_close(out.video, step, atol=1e-5, rtol=1e-5)


def test_times_keep_order_and_shift_moves_them_to_noise() -> None:
    u = torch.linspace(0.01, 0.99, 99)
    for density in ("uniform", "logit_normal"):
        t = times(u, density, shift=1.0)
        assert (t.diff() > 0).all()
        assert ((t > 0) & (t < 1)).all()
        assert (times(u, density, shift=5.0) > t).all()
    assert torch.allclose(times(u, "uniform"), u)


def test_logit_normal_times_have_normal_logits() -> None:
    u = (torch.arange(10_000) + 0.5) / 10_000
    logits = torch.logit(times(u.double()))
    assert abs(float(logits.mean())) < 1e-3
    assert abs(float(logits.std()) - 1) < 1e-2


def test_a_tiny_batch_is_learned() -> None:
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, t = inputs()
    v, a = clean(video, 1), clean(audio, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    share = torch.full((2,), 0.5)
    first = flow_loss(model, v, a, t, share)
    for _ in range(60):
        optimizer.zero_grad()
        losses = flow_loss(model, v, a, t, share)
        losses.total.backward()
        optimizer.step()
    assert losses.audio is not None
    assert first.audio is not None
    assert losses.video < 0.5 * first.video
    assert losses.audio < 0.5 * first.audio


def test_a_lambda_weighs_its_modality() -> None:
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)
    video, audio, t = inputs()
    v, a, w = clean(video, 1), clean(audio, 2), torch.ones(2)
    losses = flow_loss(model, v, a, t, w, lambdas=(1.0, 0.1))
    assert losses.audio is not None
    torch.testing.assert_close(losses.total, losses.video + 0.1 * losses.audio)
    same = dataclasses.replace(losses, total=losses.video)
    assert same.video is losses.video
