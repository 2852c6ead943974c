import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avdata.trainer.config import TrainConfig
from avdata.trainer.ema import Ema
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.optimizer import Rates, adamw, set_rate
from avdata.trainer.schedule import ScheduleConfig, share_of_peak
from tests.trainer.tiny import CLIP, CONFIG, SPECS

RATES = Rates(new=1e-2, pretrained=1e-3, weight_decay=0.1, betas=(0.9, 0.95))


def model() -> AVFullDiT:
    return AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed=0)


def test_every_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    net = model()
    optimizer = adamw(net, RATES, lambda name: name.startswith("video."))
    names = {parameter: name for name, parameter in net.named_parameters()}
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            seen.append(name)
            assert group["peak"] == (RATES.pretrained if name.startswith("video.") else RATES.new)
            if group["weight_decay"]:
                assert parameter.ndim >= 2
                assert name.endswith("weight")
            else:
                assert parameter.ndim < 2 or name.endswith("scale_shift_table"), name
    assert sorted(seen) == sorted(names.values())
    assert {bool(group["weight_decay"]) for group in optimizer.param_groups} == {True, False}


@pytest.mark.parametrize("settings", [{"beta1": 1.5}, {"beta2": 1.0}, {"beta1": -0.1}])
def test_moments_that_would_never_settle_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(settings))} must be in \[0, 1\)"):
        TrainConfig(**settings)


def test_without_gradients_to_speak_of_only_matrices_shrink() -> None:
    net = model()
    optimizer = adamw(net, RATES, lambda name: name.startswith("video."))
    before = {name: one.detach().clone() for name, one in net.named_parameters()}
    for one in net.parameters():
        one.grad = torch.zeros_like(one)
    set_rate(optimizer, 0.5)
    optimizer.step()
    for name, one in net.named_parameters():
        rate = (RATES.pretrained if name.startswith("video.") else RATES.new) / 2
        decays = not torch.equal(one, before[name])
        wanted = before[name] * (1 - rate * RATES.weight_decay) if decays else before[name]
        torch.testing.assert_close(one.detach(), wanted, rtol=1e-5, atol=1e-8)
        assert not (decays and (one.ndim < 2 or name.endswith("scale_shift_table")))


@given(
    st.sampled_from(["constant", "cosine", "wsd"]),
    st.integers(1, 200),
    st.integers(0, 50),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_a_schedule_rises_and_never_rises_again(
    kind: Any, steps: int, warmup: int, decay_share: float, floor: float
) -> None:
    config = ScheduleConfig(kind, decay_share, floor)
    shares = [share_of_peak(config, step, steps, warmup) for step in range(steps)]
    assert all(0 <= one <= 1 for one in shares)
    risen = shares[min(warmup, steps) :]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(risen))
    assert all(one >= floor - 1e-9 for one in risen)
    # As long as the length does not matter, a longer run has the same rates.
    longer = [share_of_peak(config, step, 2 * steps, warmup) for step in range(steps)]
    kept = min(config.steady_until(steps, warmup), config.steady_until(2 * steps, warmup))
    same = steps if math.isinf(kept) else min(steps, math.floor(kept))
    assert shares[:same] == longer[:same]


def test_cosine_and_wsd_come_down_to_their_floor() -> None:
    for kind in ("cosine", "wsd"):
        config = ScheduleConfig(kind, floor=0.1)
        assert share_of_peak(config, 1000, 1000, 10) == pytest.approx(0.1)
        assert share_of_peak(config, 999, 1000, 10) == pytest.approx(0.1, abs=0.01)
    assert share_of_peak(ScheduleConfig("wsd"), 790, 1000, 10) == 1.0


def test_an_average_is_the_average_and_the_weights_come_back_to_the_bit() -> None:
    net = nn.Linear(3, 2)
    ema = Ema(net, decay=0.5)
    wanted = net.weight.detach().clone()
    for step in range(20):
        with torch.no_grad():
            net.weight.add_(torch.randn(2, 3))
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * net.weight.detach()
        torch.testing.assert_close(ema.averages["weight"], wanted)
    kept = net.weight.detach().clone()
    with ema.in_place():
        torch.testing.assert_close(net.weight.detach(), wanted)
        assert not torch.equal(net.weight, kept)
    assert torch.equal(net.weight, kept)
    torch.testing.assert_close(ema.averages["weight"], wanted)
