"""Claims about SGD: it is torch.optim's to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.training.sgd import Sgd


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_weights_are_those_of_pytorchs_own_bit_for_bit(momentum: float) -> None:
    draws = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=draws) for shape in ((8, 3, 3, 3), (5, 8), (8,), (5,), (2,))]
    ours, theirs = ([value.clone().requires_grad_() for value in start] for _ in range(2))
    sgd = Sgd([(ours[:2], 5e-4), (ours[2:], 0.0)], 0.1, momentum)
    groups = [{"params": theirs[:2], "weight_decay": 5e-4}, {"params": theirs[2:], "weight_decay": 0.0}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=momentum, nesterov=momentum > 0)
    for step in range(12):
        for group in reference.param_groups:
            group["lr"] = 0.1 / (step + 1)
        sgd.forget_gradients()
        reference.zero_grad()
        for mine, its in zip(ours[:-1], theirs[:-1], strict=True):  # the last one has no part in the loss
            if step % 3 == 2 and mine.ndim == 1:
                continue
            gradient = torch.randn(mine.shape, generator=draws)
            mine.grad, its.grad = gradient.clone(), gradient.clone()
        sgd.step(0.1 / (step + 1))
        reference.step()
        assert [torch.equal(mine, its) for mine, its in zip(ours, theirs, strict=True)] == [True] * 5
    assert torch.equal(ours[-1], start[-1])
    kept: dict[Tensor, Tensor] = {p: s["momentum_buffer"] for p, s in reference.state.items() if momentum}
    assert all(torch.equal(sgd.buffers[mine], kept[its]) for mine, its in zip(ours, theirs, strict=True) if its in kept)
    assert len(sgd.buffers) == len(kept)
