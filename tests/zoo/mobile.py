"""Classifiers for small devices, with gates and shuffles, written small: 3x32x32 to ten logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.plain import Classifier, block, conv


class Squeeze(nn.Module):
    """Squeeze-and-excitation, by convolutions or by Linear."""

    def __init__(self, width: int, linear: bool = False, hard: bool = False) -> None:
        super().__init__()
        self.linear, self.hard = linear, hard
        self.down = nn.Linear(width, 4) if linear else nn.Conv2d(width, 4, 1)
        self.up = nn.Linear(4, width) if linear else nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(x, 1)
        gate = self.up(F.relu(self.down(pooled)))
        gate = F.hardsigmoid(gate) if self.hard else torch.sigmoid(gate)
        return x * (gate.view(x.size(0), -1, 1, 1) if self.linear else gate)


def se_resnet() -> nn.Module:
    """Two gates by Linear."""
    return Classifier(nn.Sequential(block(3, 12, stride=2), Squeeze(12, True), block(12, 16), Squeeze(16, True)), 16)


class Cbam(nn.Module):
    """Channels by mean and largest pixel, then pixels by mean and largest channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(width, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 1))
        self.place = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True)))
        both = torch.cat([x.mean(1, keepdim=True), torch.max(x, 1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.place(both))


def cbam() -> nn.Module:
    """Attention over channels and pixels."""
    return Classifier(nn.Sequential(block(3, 12, stride=2), Cbam(12), block(12, 16), Cbam(16)), 16)


def mobilenet_v1() -> nn.Module:
    """Depthwise and pointwise."""
    return Classifier(nn.Sequential(block(3, 12, stride=2), block(12, 12, groups=12), block(12, 24, 1)), 24)


class Inverted(nn.Module):
    """Wide, depthwise, narrow; with any activation, and a gate or none."""

    def __init__(self, width: int, act: type[nn.Module], kernel: int = 3, gate: nn.Module | None = None) -> None:
        super().__init__()
        wide = 2 * width
        parts = [*conv(width, wide, 1), act(), *conv(wide, wide, kernel, groups=wide), act()]
        self.way = nn.Sequential(*parts, gate or nn.Identity(), *conv(wide, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.way(x)
        return out


def mobilenet_v2() -> nn.Module:
    """ReLU6."""
    stem = *conv(3, 12, stride=2), nn.ReLU6()
    return Classifier(
        nn.Sequential(*stem, Inverted(12, nn.ReLU6), Inverted(12, nn.ReLU6), *conv(12, 24, 1), nn.ReLU6()), 24
    )


def mobilenet_v3() -> nn.Module:
    """HardSwish and a gate of HardSigmoid."""
    stem = *conv(3, 12, stride=2), nn.Hardswish()
    body = Inverted(12, nn.Hardswish, 5, Squeeze(24, hard=True))
    return Classifier(nn.Sequential(*stem, body, *conv(12, 24, 1), nn.Hardswish()), 24)


def efficientnet() -> nn.Module:
    """SiLU and a gate."""
    stem = *conv(3, 12, stride=2), nn.SiLU()
    body = Inverted(12, nn.SiLU, 3, Squeeze(24))
    return Classifier(nn.Sequential(*stem, body, *conv(12, 24, 1), nn.SiLU()), 24)


def mnasnet() -> nn.Module:
    """Kernels of five, no activation behind the narrow convolution."""
    return Classifier(nn.Sequential(block(3, 12, stride=2), Inverted(12, nn.ReLU, 5), *conv(12, 20, 1), nn.ReLU()), 20)


class Shuffle(nn.Module):
    """Half of the channels through a way, then both shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.way = nn.Sequential(*block(half, half, 1), *conv(half, half, groups=half), *block(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        x = torch.cat([kept, self.way(changed)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet() -> nn.Module:
    """ShuffleNetV2."""
    return Classifier(nn.Sequential(block(3, 16, stride=2), Shuffle(16), block(16, 24, 1)), 24)


class Ghost(nn.Module):
    """Half of the maps are made cheaply of the others."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs, half = outputs, (outputs + 1) // 2
        self.first, self.cheap = block(inputs, half, 1), block(half, half, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([x, self.cheap(x)], 1)[:, : self.outputs]


def ghostnet() -> nn.Module:
    """An odd number of channels is cut off."""
    return Classifier(nn.Sequential(block(3, 16, stride=2), Ghost(16, 15), Ghost(15, 24)), 24)


class SamePadding(nn.Module):
    """TensorFlow's SAME by arithmetic on the size of the maps, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, 2), nn.Conv2d(12, 20, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            missing = [max((-(-s // 2) - 1) * 2 + layer.kernel_size[0] - s, 0) for s in (x.shape[3], x.shape[2])]
            x = F.relu(layer(F.pad(x, [part for m in missing for part in (m // 2, m - m // 2)])))
        return x


def same_padding() -> nn.Module:
    """As EfficientNet's ports pad."""
    return Classifier(SamePadding(), 20)


class EfficientChannel(nn.Module):
    """ECA: a convolution along the channels of the pooled maps."""

    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1)
        y = self.along(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * torch.sigmoid(y).expand_as(x)


def eca() -> nn.Module:
    """Two such gates."""
    return Classifier(nn.Sequential(block(3, 12, stride=2), EfficientChannel(), block(12, 16), EfficientChannel()), 16)
