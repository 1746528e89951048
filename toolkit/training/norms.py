"""Batch norms over the shards of all processes: one that sees only its shard would make another network.

During training the norms are swapped for some that share their moments, and swapped back after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from toolkit.training.distributed import World


class _MeanOverRanks(torch.autograd.Function):
    """The mean of a tensor over all processes, differentiable: the gradient is the mean of theirs.

    PyTorch's own differentiable all_reduce sums in both directions; a mean in both is the same thing for a mean.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.div_(dist.get_world_size())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.div_(dist.get_world_size())


def _mean_over_ranks(value: Tensor) -> Tensor:
    return cast("Tensor", _MeanOverRanks.apply(value))  # type: ignore[no-untyped-call]


class CrossRankBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the shards of all processes, for the CPU: torch's SyncBatchNorm takes CUDA tensors only.

    Shards have one size, so the mean of their means is the batch's. The variance is taken around that mean in a second
    pass: E[x^2] - E[x]^2 would lose digits that a single process keeps.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same, in the input's type; moments in float32 at least."""
        if not self.training:
            return super().forward(input)
        assert self.momentum is not None
        x = input if input.dtype == torch.float64 else input.float()
        mean = _mean_over_ranks(x.mean((0, 2, 3)))
        centered = x - mean[:, None, None]
        variance = _mean_over_ranks(centered.square().mean((0, 2, 3)))
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            count = x.numel() // x.shape[1] * dist.get_world_size()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


@contextmanager
def shared_norms(model: nn.Module, world: World, device: torch.device) -> Iterator[None]:
    """For a block, every BatchNorm2d of a module normalizes over all processes; parameters and names stay the same."""
    if world.size == 1:
        yield
        return
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.BatchNorm2d
    ]
    for parent, name, child in found:
        setattr(parent, name, _sharing(child, nn.SyncBatchNorm if device.type == "cuda" else CrossRankBatchNorm2d))
    try:
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)


def _sharing(norm: nn.BatchNorm2d, kind: type[nn.SyncBatchNorm] | type[CrossRankBatchNorm2d]) -> nn.Module:
    """A norm of another kind over the same parameters and buffers."""
    twin = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin.weight, twin.bias = norm.weight, norm.bias
    twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
    twin.num_batches_tracked = norm.num_batches_tracked
    return twin.train(norm.training)
