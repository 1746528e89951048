"""Residual networks for small images: a 3x3 or 1x1 stem without pooling, basic blocks, few strides.

Sources: He et al., "Deep Residual Learning for Image Recognition" (2015), section 4.2, for the 6n+2 family;
its option B (a 1x1 projection) where a shortcut changes shape.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.errors import ModelError


@dataclass(frozen=True)
class ResNetConfig:
    """Everything that decides the shape of the network; a card stores it and rebuilds from it.

    Attributes:
        widths: channels of each stage; the stem has the first.
        blocks: residual blocks in each stage.
        strides: stride of the first block of each stage.
        stem_kernel: 3 or 1, without stride or pooling.
        in_channels: 1 for grayscale, 3 for RGB.
        classes: number of logits.
    """

    widths: tuple[int, ...] = (64, 64, 64)
    blocks: tuple[int, ...] = (2, 2, 2)
    strides: tuple[int, ...] = (1, 2, 2)
    stem_kernel: int = 3
    in_channels: int = 3
    classes: int = 10

    def __post_init__(self) -> None:
        lengths = {len(self.widths), len(self.blocks), len(self.strides)}
        if len(lengths) != 1 or not self.widths:
            raise ModelError(
                "widths, blocks and strides must have one entry a stage each",
                found=f"{len(self.widths)} widths, {len(self.blocks)} blocks, {len(self.strides)} strides",
                allowed="three lists of one length, such as `widths=(64, 64, 64), blocks=(2, 2, 2), strides=(1, 2, 2)`",
            )
        numbers = [*self.widths, *self.blocks, *self.strides, self.stem_kernel, self.in_channels, self.classes]
        if any(type(number) is not int for number in numbers):  # a card is written by people too
            raise ModelError("an architecture is made of whole numbers", found=numbers)
        for name, low, high in (("widths", 1, 4096), ("blocks", 1, 256), ("strides", 1, 8)):
            values = getattr(self, name)
            if any(not low <= value <= high for value in values):
                raise ModelError(f"{name} out of range", found=values, allowed=f"{low} to {high}")
        if self.stem_kernel not in (1, 3):
            raise ModelError("the stem's kernel does not exist", found=self.stem_kernel, allowed="3 or 1")
        if self.in_channels not in (1, 3):
            raise ModelError("unsupported input channels", found=self.in_channels, allowed="1 or 3")
        if self.classes < 2:
            raise ModelError("a classifier needs at least two classes", found=self.classes)

    def require_size(self, height: int, width: int) -> None:
        """Refuses images so small that a stride would step over them.

        Raises:
            ModelError: height or width is below the product of the strides.
        """
        least = math.prod(self.strides)
        if min(height, width) < least:
            raise ModelError(
                f"images of {height}x{width} are too small for this network",
                found=f"strides {', '.join(map(str, self.strides))}",
                allowed=f"at least {least}x{least}, or smaller strides",
                fix=f"`strides={(1,) * len(self.strides)}`, or larger images",
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for a card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def config_from_dict(values: dict[str, Any]) -> ResNetConfig:
    """The inverse of `ResNetConfig.as_dict`."""
    try:
        entries: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return ResNetConfig(**entries)
    except TypeError as error:
        raise ModelError("the card's architecture cannot be read", found=error) from error


def config_from_name(name: str, *, in_channels: int = 3, classes: int = 10) -> ResNetConfig:
    """The configuration of a named architecture.

    `resnet32x32` has three stages of two blocks with 64 channels each. `resnetD` is He et al.'s CIFAR network of
    depth D = 6n + 2: three stages of n blocks with 16, 32 and 64 channels.

    Raises:
        ModelError: no such architecture, or a depth that the family does not have.
    """
    if name == "resnet32x32":
        return ResNetConfig(in_channels=in_channels, classes=classes)
    digits = name.removeprefix("resnet")
    if not name.startswith("resnet") or not digits.isdecimal():
        raise ModelError(
            f"unknown architecture '{name}'",
            allowed="resnet32x32, or resnet20, resnet32, resnet44, resnet56 (any depth 6n + 2)",
            fix="`toolkit.train(options=TrainOptions(arch='resnet32x32'))`",
        )
    depth = int(digits)
    count, rest = divmod(depth - 2, 6)
    if rest or not 1 <= count <= 200:
        below = 6 * min(max(count, 1), 199) + 2
        raise ModelError(
            f"a ResNet of depth {depth} does not exist in the CIFAR family",
            found=f"depth {depth}",
            allowed="depths 6n + 2: 8, 14, 20, 26, 32, 38, 44, 50, 56, ..., 110",
            fix=f"`arch='resnet{below}'` or `arch='resnet{below + 6}'`; for the 64-64-64 network, `arch='resnet32x32'`",
        )
    return ResNetConfig(widths=(16, 32, 64), blocks=(count,) * 3, in_channels=in_channels, classes=classes)


class BasicBlock(nn.Module):
    """conv-bn-relu-conv-bn, added to the shortcut, then relu: (N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(inner + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Normalized float images (N, C, H, W) to logits (N, classes)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width, kernel = config.widths[0], config.stem_kernel
        self.stem = nn.Sequential(
            nn.Conv2d(config.in_channels, width, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        stages = []
        for out_width, count, stride in zip(config.widths, config.blocks, config.strides, strict=True):
            blocks = []
            for index in range(count):
                blocks.append(BasicBlock(width, out_width, stride if index == 0 else 1))
                width = out_width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, config.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, "Delving Deep into Rectifiers"
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stages(self.stem(x)))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


class Classifier(nn.Module):
    """Preprocessing and network in one: images uint8 (N, H, W, C) to float32 logits (N, classes).

    Nobody can forget the mean, because it is part of the module that is exported. The order is Cast, Transpose,
    normalize: TensorRT refuses a Transpose on uint8.

    Args:
        net: takes normalized float images (N, C, H, W).
        scale: float32 (C,), 1 / (255 * std).
        shift: float32 (C,), -mean / std.
        contiguous: hand the net plain NCHW memory. The transposed images are channels_last, which is faster, and in
            which `x.view(x.size(0), -1)` behind a convolution fails.
        bgr: the net wants blue first.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, net: nn.Module, scale: Tensor, shift: Tensor, contiguous: bool = False, bgr: bool = False
    ) -> None:
        super().__init__()
        self.net = net
        self.contiguous = contiguous
        self.bgr = bgr
        self.register_buffer("scale", scale.reshape(1, -1, 1, 1).float())
        self.register_buffer("shift", shift.reshape(1, -1, 1, 1).float())

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(torch.float32).permute(0, 3, 1, 2)
        if self.contiguous:
            # `contiguous()` would keep the strides of one channel, which a convolution takes for channels_last.
            x = x.clone(memory_format=torch.contiguous_format)
        x = x * self.scale + self.shift
        if self.bgr:
            x = torch.index_select(x, 1, torch.tensor([2, 1, 0], device=x.device))
        logits: Tensor = logits_alone(self.net(x))
        return logits


def logits_alone(answer: Any) -> Any:
    """What is called `logits` in an answer of several parts, or its only tensor; any other answer as it is."""
    if isinstance(answer, Tensor):
        return answer
    named = answer.get("logits") if isinstance(answer, dict) else getattr(answer, "logits", None)
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, (tuple, list)) else ()
    tensors = [part for part in parts if part is not None]
    if isinstance(named, Tensor):
        return named
    return tensors[0] if len(tensors) == 1 else answer
