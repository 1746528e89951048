"""Classifiers that mix tokens, or have none of the usual norms, written small: 3x32x32 to ten logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from tests.zoo.plain import CLASSES, Classifier, block


def mlp() -> nn.Module:
    """Pixels in a row."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 48), nn.ReLU(), nn.Linear(48, 32), nn.GELU(), nn.Linear(32, CLASSES)
    )


class Encoder(nn.Module):
    """A block of ViT, query, key and value by one product."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.norm, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Vit(nn.Module):
    """Patches, a class token that answers, places."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.randn(1, 1, 32))
        self.places, self.block = nn.Parameter(torch.randn(1, 17, 32) * 0.3), Encoder(32)
        self.norm, self.fc = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        out: Tensor = self.fc(self.norm(self.block(x))[:, 0])
        return out


class Multihead(nn.Module):
    """torch.nn.MultiheadAttention over patches, with the batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 32, 8, 8), nn.LayerNorm(32)
        self.attention, self.fc = nn.MultiheadAttention(32, 2, batch_first=True), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        out: Tensor = self.fc((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))
        return out


class Windows(nn.Module):
    """Swin's windows, shifted by a roll, and patches merged."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.block = nn.Conv2d(3, 24, 4, 4), Encoder(24)
        self.merge, self.fc = nn.Linear(96, 32, bias=False), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(self.patches(x).permute(0, 2, 3, 1), (-2, -2), (1, 2))
        n, h, w, c = x.shape
        x = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        x = self.block(x).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        out: Tensor = self.fc(F.gelu(self.merge(torch.cat(parts, -1))).mean((1, 2)))
        return out


class MixerBlock(nn.Module):
    """Over tokens, then over channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.over_channels = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.over_channels(self.norm2(x))
        return out


class Mixer(nn.Module):
    """MLP-Mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, 24, 8, 8), MixerBlock(16, 24)
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))
        return out


class ConvMixerBlock(nn.Module):
    """A residual depthwise convolution of a large kernel, then a pointwise one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.Conv2d(width, width, 5, groups=width, padding="same"), nn.GELU(), nn.BatchNorm2d(width)
        )
        self.point = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point(x + self.deep(x))
        return out


def convmixer() -> nn.Module:
    """Patches are all you need."""
    stem = nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.BatchNorm2d(16)
    return Classifier(nn.Sequential(*stem, ConvMixerBlock(16)), 16)


class NextBlock(nn.Module):
    """ConvNeXt: depthwise, LayerNorm over channels that are last, two Linear, a scale a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = (self.gamma * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)
        out: Tensor = x + y
        return out


def convnext() -> nn.Module:
    """One block behind patches."""
    return Classifier(nn.Sequential(nn.Conv2d(3, 24, 4, 4), NextBlock(24)), 24)


class Recurrent(nn.Module):
    """Rows of the maps through a GRU whose state is made in forward; its last step answers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gru, self.fc = block(3, 8, stride=4), nn.GRU(64, 24, batch_first=True), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 1, 3).flatten(2)
        state = torch.zeros(1, x.shape[0], 24)
        out: Tensor = self.fc(self.gru(x, state)[0][:, -1])
        return out


def group_normed() -> nn.Module:
    """GroupNorm, InstanceNorm, PReLU, ELU."""
    first = nn.Conv2d(3, 12, 3, 2, 1), nn.GroupNorm(3, 12), nn.PReLU(12)
    second = nn.Conv2d(12, 16, 3, 2, 1), nn.InstanceNorm2d(16, affine=True), nn.ELU()
    return Classifier(nn.Sequential(*first, *second), 16)


class Standardized(nn.Conv2d):
    """Weights standardized on the way."""

    def forward(self, input: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        out: Tensor = self._conv_forward(input, (self.weight - mean) / (std + 1e-5) * 0.3, self.bias)
        return out


def weight_standardized() -> nn.Module:
    """As BiT and NFNet."""
    first = Standardized(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.ReLU()
    return Classifier(nn.Sequential(*first, Standardized(16, 24, 3, 2, 1), nn.GroupNorm(4, 24), nn.ReLU()), 24)


def weight_normed() -> nn.Module:
    """One convolution pruned, one with its length apart, both before BatchNorm."""
    net = Classifier(nn.Sequential(block(3, 12, stride=2), block(12, 16)), 16)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    prune.l1_unstructured(convolutions[0], "weight", 0.5)  # type: ignore[no-untyped-call]
    parametrizations.weight_norm(convolutions[1])
    return net


class Odds(nn.Module):
    """What people write in forward: where, flip, clamp from below, interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.fc = block(3, 12, stride=2), block(12, 16, stride=2), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.where(x > 0.2, x, torch.zeros_like(x)) + 0.1 * torch.flip(x, (3,)).clamp(min=0.1)
        x = F.interpolate(self.last(x), size=(12, 12), mode="bilinear")
        out: Tensor = self.fc(x.reshape(x.shape[0], 16, 144).mean(2))
        return out
