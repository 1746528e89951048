"""Convolutional classifiers as papers have them, written small: 3x32x32 to ten logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and BatchNorm."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm and ReLU."""
    return nn.Sequential(*conv(inputs, outputs, kernel, stride, groups), nn.ReLU())


class Classifier(nn.Module):
    """Maps, their mean, a head."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.body(x).mean((2, 3)))
        return out


def lenet() -> nn.Module:
    """LeNet-5 with tanh and average pools."""
    first = nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2)
    second = nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(400, 64), nn.Tanh(), nn.Linear(64, CLASSES))


def vgg() -> nn.Module:
    """Convolutions in pairs, a head of three Linear with Dropout."""
    body = [*block(3, 12), *block(12, 12), nn.MaxPool2d(2), *block(12, 16), nn.MaxPool2d(2), *block(16, 24)]
    head = nn.Linear(24 * 16, 48), nn.ReLU(), nn.Dropout(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    return nn.Sequential(*body, nn.MaxPool2d(2), nn.Flatten(), *head)


def alexnet() -> nn.Module:
    """Local response normalization, overlapping pools, a pool to a size that does not divide."""
    body = [
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 24, 3),
        nn.ReLU(),
    ]
    return nn.Sequential(
        *body, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(216, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )


class Basic(nn.Module):
    """A residual block; `option` A pads the shortcut with channels of zeros, B projects it."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.way = nn.Sequential(*block(inputs, outputs, 3, stride), *conv(outputs, outputs))
        self.extra = outputs - inputs
        self.project = conv(inputs, outputs, 1, stride) if option == "B" and stride > 1 else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.way(x)
        if self.project is not None:
            x = self.project(x)
        elif self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(y + x)


def resnet(option: str) -> nn.Module:
    """Two stages of the CIFAR ResNet."""
    return Classifier(nn.Sequential(block(3, 8), Basic(8, 8, 1, option), Basic(8, 16, 2, option)), 16)


class Preactivated(nn.Module):
    """BatchNorm and ReLU before each convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1, bias=False))
        self.second = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x))
        return out


def preresnet() -> nn.Module:
    """Identity mappings in deep residual networks."""
    body = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), Preactivated(12), Preactivated(12))
    return Classifier(nn.Sequential(body, nn.BatchNorm2d(12), nn.ReLU()), 12)


def wide_resnet() -> nn.Module:
    """Preactivated, wide, with dropout between."""
    body = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), Preactivated(24), nn.Dropout(0.3), Preactivated(24))
    return Classifier(nn.Sequential(body, nn.BatchNorm2d(24), nn.ReLU(), nn.AvgPool2d(4)), 24)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.way = nn.Sequential(*block(width, 16, 1), *block(16, 16, groups=groups), *conv(16, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.way(x))


def resnext() -> nn.Module:
    """Aggregated transformations."""
    return Classifier(nn.Sequential(block(3, 24, stride=2), Bottleneck(24, 4), Bottleneck(24, 4)), 24)


class Dense(nn.Module):
    """What it makes beside what it reads."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, growth, 3, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.make(x)], 1)


def densenet() -> nn.Module:
    """Two dense layers, a transition, one more."""
    body = [block(3, 12, stride=2), Dense(12, 8), Dense(20, 8), nn.BatchNorm2d(28), nn.ReLU(), nn.Conv2d(28, 14, 1)]
    return Classifier(nn.Sequential(*body, nn.AvgPool2d(2), Dense(14, 8), nn.BatchNorm2d(22), nn.ReLU()), 22)


class Inception(nn.Module):
    """Four ways of other kernels, joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.three = block(width, 8, 1), nn.Sequential(*block(width, 6, 1), *block(6, 8))
        self.factored = nn.Sequential(
            nn.Conv2d(width, 8, (1, 3), 1, (0, 1)), nn.ReLU(), nn.Conv2d(8, 8, (3, 1), 1, (1, 0))
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), *block(width, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), F.relu(self.factored(x)), self.pool(x)], 1)


def googlenet() -> nn.Module:
    """A stem and two modules."""
    return Classifier(nn.Sequential(block(3, 16, stride=2), Inception(16), nn.MaxPool2d(2), Inception(32)), 32)


class Fire(nn.Module):
    """Squeeze and expand, with BatchNorm, as ports for small images have it."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = (
            conv(inputs, squeezed, 1),
            conv(squeezed, expanded, 1),
            conv(squeezed, expanded),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class SqueezeNet(nn.Module):
    """Its classifier is a convolution behind a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(16, 6, 12), Fire(24, 6, 12)
        )
        self.head = nn.Sequential(nn.Dropout(), nn.Conv2d(24, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.head(self.body(x)), 1)


class Rep(nn.Module):
    """RepVGG before it is merged: 3x3, 1x1 and identity, each with BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.three, self.one, self.same = conv(width, width), conv(width, width, 1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.three(x) + self.one(x) + self.same(x))


def repvgg() -> nn.Module:
    """Two such blocks."""
    return Classifier(nn.Sequential(block(3, 16, stride=2), Rep(16), Rep(16)), 16)


class PartialStage(nn.Module):
    """Cross-stage partial: half through a residual block, as YOLO's classifiers have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.inner, self.leave = (
            block(width, width, 1),
            block(width // 2, width // 2),
            block(width * 3 // 2, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.enter(x).chunk(2, 1)
        out: Tensor = self.leave(torch.cat([one, two, two + self.inner(two)], 1))
        return out


def yolo() -> nn.Module:
    """A classifier of that family."""
    return Classifier(nn.Sequential(block(3, 16, stride=2), PartialStage(16), block(16, 24, stride=2)), 24)


def nin() -> nn.Module:
    """Network in network: the last maps are the classes."""
    body = [
        *block(3, 16, 5),
        nn.Conv2d(16, 12, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *block(12, 16),
        nn.Conv2d(16, CLASSES, 1),
    ]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
