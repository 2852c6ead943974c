"""One step of the loop, by hand: two weights, a loss whose gradients are known."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avdata.trainer.group import joined
from avdata.trainer.step import Learner, take_step
from avdata.trainer.task import Outcome, Seats

GRADIENTS = {"video": 3.0, "audio": 4.0}
"""Of the towers; together they have norm 5."""
RATE = 0.5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.video = nn.Linear(1, 1, bias=False)
        self.audio = nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen, heard = GRADIENTS["video"] * self.video(x), GRADIENTS["audio"] * self.audio(x)
        each: Tensor = (seen + heard).squeeze(1)
        return each


class Mean:
    """A `Task`: the mean of what the net says of its batch."""

    def batches(self, first: int, last: int) -> Iterator[Tensor]:
        yield from (torch.ones(2, 1) for _ in range(first, last))

    def seats(self, _step: int) -> Seats:
        return Seats(["a", "b"], 0, 2)

    def parts(self, batch: Tensor) -> Sequence[Tensor]:
        return [batch]

    def draws(self, batch: Tensor) -> list[int]:
        return [0] * len(batch)

    def loss(self, model: nn.Module, batch: Tensor) -> Outcome:
        each = model(batch)
        read = torch.tensor(float(len(batch)))
        return Outcome(each.mean(), {}, read, ~each.detach().isfinite())

    def line(self, _sums: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        return {}

    def work(self, _batch: Tensor) -> tuple[int, int]:
        return 0, 0

    def measured(self, _step: int, *, validate: bool, sample: bool) -> dict[str, Any]:
        return {"validate": validate, "sample": sample}


@pytest.mark.parametrize("clip_norm", [1e-3, 2.5, 1e3])
def test_gradients_of_all_towers_are_scaled_to_the_largest_norm_that_is_allowed(
    clip_norm: float,
) -> None:
    """And left alone below it; the metrics have the norm that they had."""
    net = Net()
    before = {name: getattr(net, name).weight.item() for name in GRADIENTS}
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    with joined("cpu") as group:
        learner = Learner(group, net, net, optimizer, None, clip_norm)
        taken = take_step(learner, Mean(), 0, torch.ones(2, 1), {})
    assert taken.applied
    assert taken.norms == pytest.approx({"all": 5.0, **GRADIENTS})
    for name, gradient in GRADIENTS.items():
        moved = getattr(net, name).weight.item() - before[name]
        assert moved == pytest.approx(-RATE * gradient * min(1.0, clip_norm / 5), rel=1e-3)
