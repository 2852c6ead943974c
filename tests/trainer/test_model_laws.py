"""Laws of the model beyond those of `test_model`: gradients, order of tokens, precision, cost."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from avdata.encoders.spec import ClipShape, tau
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import Fusion, ModelConfig, preset
from avdata.trainer.model.cost import PAPER_SPECS, cost, meta_model
from avdata.trainer.model.modality import Velocity
from avdata.trainer.model.rope import Rotation
from avdata.trainer.model.units import units
from tests.trainer.tiny import CLIP, CONFIG, SPECS, conditioning, inputs


def model(config: ModelConfig = CONFIG) -> AVFullDiT:
    return AVFullDiT.build(config, SPECS, CLIP, "t2av", seed=0)


def gradients(module: nn.Module, out: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    out.square().mean().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def both(out: Velocity) -> Tensor:
    assert out.audio is not None
    return torch.cat([out.video.flatten(), out.audio.flatten()])


def relative(rough: Tensor, exact: Tensor) -> float:
    return float((rough - exact).detach().norm() / exact.detach().norm())


def test_the_video_tower_alone_has_the_gradients_of_wans_transformer() -> None:
    twin = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2v", seed=0)
    video, _, t = inputs()
    ours = gradients(twin.video.wan, twin(video, None, t).video)
    theirs = gradients(
        twin.video.wan, twin.video.wan(video.latents, t * 1000, video.text, return_dict=False)[0]
    )
    assert len(theirs) == len(list(twin.video.wan.parameters()))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_audio_tower_alone_has_the_gradients_of_fluxs_transformer() -> None:
    tower = model(dataclasses.replace(CONFIG, num_joint=0)).audio
    _, audio, t = inputs()
    full = dataclasses.replace(audio, text_mask=torch.ones_like(audio.text_mask))
    scale = tau(SPECS.video, SPECS.audio, CLIP.fps)
    ours = gradients(tower, tower.end(tower.early(tower.begin(full, t, scale))))
    length = audio.latents.shape[-1]
    text, pooled = conditioning(tower, audio)
    out = tower.flux(
        hidden_states=audio.latents.transpose(1, 2),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=t,
        img_ids=(torch.arange(length) / scale)[:, None].expand(length, 3),
        txt_ids=torch.zeros(text.shape[1], 3),
        return_dict=False,
    )[0]
    theirs = gradients(tower, out)
    assert len(theirs) == len(list(tower.parameters()))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_permuted_tokens_with_their_positions_give_permuted_outputs() -> None:
    whole = model()
    video, audio, t = inputs()
    seen, heard = whole.video.begin(video, t, whole.tau), whole.audio.begin(audio, t, whole.tau)
    layers = whole.video.wan.blocks[0], whole.audio.flux.single_transformer_blocks[0]
    mask = whole._mask(seen.tokens.shape[1], heard.mask)
    before = whole.joints[0](*layers, seen, heard, mask)
    g = torch.Generator().manual_seed(5)
    p = torch.randperm(seen.tokens.shape[1], generator=g)
    r = torch.randperm(heard.audio.shape[1], generator=g)
    first = heard.text.shape[1]
    order = torch.cat([torch.arange(first), first + r])
    mixed = dataclasses.replace(
        seen, tokens=seen.tokens[:, p], turned=Rotation(seen.turned.cos[p], seen.turned.sin[p])
    )
    turned = Rotation(heard.turned.cos[order], heard.turned.sin[order])
    noise = dataclasses.replace(heard, audio=heard.audio[:, r], turned=turned)
    after = whole.joints[0](*layers, mixed, noise, mask)
    torch.testing.assert_close(after.video, before.video[:, p], atol=1e-5, rtol=0)
    torch.testing.assert_close(after.audio, before.audio[:, r], atol=1e-5, rtol=0)
    torch.testing.assert_close(after.audio_text, before.audio_text, atol=1e-5, rtol=0)


@torch.no_grad()
def test_queries_and_keys_of_the_new_heads_are_normed_as_the_pretrained_ones_are() -> None:
    """Their size does not matter; that of values does."""
    whole = model()
    before = both(whole(*inputs()))
    for name, matters in (("new_q", False), ("new_k", False), ("new_v", True)):
        for joint in whole.joints:
            joint.get_parameter(f"{name}.weight").mul_(3)
        changed = relative(both(whole(*inputs())), before)
        assert (changed > 1e-2) if matters else (changed < 1e-4), name


@pytest.mark.parametrize("fusion", ["full", "cross"])
def test_activations_computed_again_give_the_same_gradients(fusion: Fusion) -> None:
    config = dataclasses.replace(CONFIG, fusion=fusion)
    plain, again = model(config), model(config)
    again.checkpoint_activations()
    ours, theirs = (gradients(one, both(one(*inputs()))) for one in (again, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_activations_computed_again_are_not_kept() -> None:
    """What the forward pass leaves for the backward pass, in numbers."""
    kept = []
    for forget in (False, True):
        whole = model()
        if forget:
            whole.checkpoint_activations()
        sizes: list[int] = []

        def note(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            whole(*inputs())
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_compiled_agrees_with_eager() -> None:
    whole = model()
    exact = both(whole(*inputs()))
    assert relative(both(torch.compile(whole)(*inputs())), exact) < 1e-5


def test_times_are_embedded_in_float32_under_autocast() -> None:
    whole = model()
    video, audio, t = inputs()
    exact = whole.video.begin(video, t, whole.tau), whole.audio.begin(audio, t, whole.tau)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = whole.video.begin(video, t, whole.tau), whole.audio.begin(audio, t, whole.tau)
    assert rough[0].tokens.dtype == torch.bfloat16
    assert torch.equal(rough[0].time, exact[0].time)
    assert torch.equal(rough[0].time_parts, exact[0].time_parts)
    assert torch.equal(rough[1].time, exact[1].time)


@torch.no_grad()
def test_what_fsdp_rounds_beyond_autocast_is_a_tenth_of_its_rounding_at_most() -> None:
    """Norms and tables of modulation of its layers, which it gathers in bfloat16 with the rest."""
    whole = model()
    layers = [module for unit in units(whole) for module in (unit.called, *unit.within)]
    fine = [
        one
        for layer in layers
        for name, one in layer.named_parameters()
        if name.endswith("scale_shift_table") or ("norm" in name and "linear" not in name)
    ]
    g = torch.Generator().manual_seed(6)
    for one in fine:  # As in training, where they are no round numbers.
        one.add_(0.1 * torch.randn(one.shape, generator=g))
    exact = both(whole(*inputs()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = both(whole(*inputs()))
    for one in fine:
        one.copy_(one.bfloat16())
    rounded = both(whole(*inputs()))
    assert 0 < relative(rounded, exact) < 0.1 * relative(half.float(), exact)


def test_tau_at_the_papers_rates() -> None:
    for fps, expected in ((16, 5.3833), (24, 3.5889)):
        assert tau(PAPER_SPECS.video, PAPER_SPECS.audio, fps) == pytest.approx(expected, abs=5e-5)


def test_the_papers_model_has_its_size() -> None:
    whole = meta_model(preset("wan5b-tangoflux"), PAPER_SPECS, ClipShape(), "t2av")
    wan, flux = whole.video.wan, whole.audio.flux
    for module, expected in (
        (wan, 4.99979e9),
        (wan.blocks[0], 163.66e6),
        (flux, 516.70e6),
        (flux.transformer_blocks[0], 37.78e6),
        (flux.single_transformer_blocks[0], 15.74e6),
        (whole.joints, 151.0e6 + 18 * 6144),
        (whole, 5.67e9),
    ):
        found = sum(p.numel() for p in module.parameters())
        assert found == pytest.approx(expected, rel=3e-4), expected


def test_counted_operations_are_those_of_the_formula() -> None:
    """Wan's layers by hand: products with weights, and attention over n tokens and k of caption."""
    config = preset("demo")
    specs = dataclasses.replace(PAPER_SPECS)
    found = cost(meta_model(config, specs, ClipShape(), "t2v"), specs, ClipShape())
    n, k, c = found.tokens_video, config.max_video_text, config.video_width
    attention = 8 * n * c * c + 4 * n * n * c
    crossing = 4 * n * c * c + 4 * k * c * c + 4 * n * k * c
    layer = attention + crossing + 4 * n * c * config.video_ffn
    caption = 2 * k * 4096 * c + 2 * k * c * c
    ends = 2 * 2 * n * 4 * specs.video.channels * c
    time = 2 * 256 * c + 2 * c * c + 2 * c * 6 * c
    assert found.flops_forward == config.video_layers * layer + caption + ends + time
    assert found.tokens_video == 540
    assert 2.5 < found.flops_step / found.flops_forward <= 3


def test_the_joint_model_costs_little_more_than_its_twin() -> None:
    """Audio has few tokens, at a third of the width but in the joint attention."""
    config, clip = preset("wan5b-tangoflux"), ClipShape()
    joint, twin = (
        cost(meta_model(config, PAPER_SPECS, clip, mode), PAPER_SPECS, clip)
        for mode in ("t2av", "t2v")
    )
    assert (joint.tokens_video, joint.tokens_audio) == (540, 108)
    assert 1.01 < joint.flops_step / twin.flops_step < 1.05
