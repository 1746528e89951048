"""VGG, SqueezeNet and MobileNetV2 at a tenth of their size, trained briefly on images of 32x32 with one recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.contracts import Dataset, LabeledImages, Preprocessing, preprocessing_from_images
from toolkit.data import sample
from toolkit.training.augment import augment

BATCH, CROP, RATE, WARM_UP, DECAY = 128, 4, 2e-3, 0.1, 1e-4


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and BatchNorm."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


def vgg(classes: int) -> nn.Module:
    """Pairs of convolutions before each pool, a head of three Linear with Dropout (Simonyan and Zisserman 2015)."""
    body: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        body += [*conv(inputs, outputs), nn.ReLU(), *conv(outputs, outputs), nn.ReLU(), nn.MaxPool2d(2)]
    head = nn.Linear(64 * 16, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, classes)
    return nn.Sequential(*body, nn.Flatten(), *head)


class Fire(nn.Module):
    """Few channels by 1x1, then many by 1x1 and 3x3, joined."""

    def __init__(self, inputs: int, few: int, many: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, few, 1), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(few, many, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(few, many, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


def squeezenet(classes: int) -> nn.Module:
    """Its last maps are the classes: convolution, ReLU, mean (Iandola et al. 2016, version 1.1)."""
    body = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    body += [Fire(32, 8, 32), Fire(64, 8, 32), nn.MaxPool2d(3, 2, ceil_mode=True)]
    body += [Fire(64, 16, 64), Fire(128, 16, 64), Fire(128, 24, 96)]
    head = nn.Dropout(0.2), nn.Conv2d(192, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(*body, *head)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return net


class Inverted(nn.Module):
    """Wide by 1x1, depthwise, narrow by 1x1 without activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, widen: int) -> None:
        super().__init__()
        wide, self.same = inputs * widen, stride == 1 and inputs == outputs
        way = [*conv(inputs, wide, 1), nn.ReLU6()] if widen > 1 else []
        way += [*conv(wide, wide, 3, stride, wide), nn.ReLU6(), *conv(wide, outputs, 1)]
        self.way = nn.Sequential(*way)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.way(x) if self.same else self.way(x)
        return out


def mobilenet_v2(classes: int) -> nn.Module:
    """Inverted residuals with ReLU6 (Sandler et al. 2018)."""
    body = [*conv(3, 16, stride=2), nn.ReLU6(), Inverted(16, 12, 1, 1)]
    for inputs, outputs, stride in ((12, 16, 1), (16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 1), (40, 40, 1)):
        body.append(Inverted(inputs, outputs, stride, 6))
    last = [*conv(40, 160, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1)]
    return nn.Sequential(*body, *last, nn.Linear(160, classes))


NETS: dict[str, Callable[[int], nn.Module]] = {"vgg": vgg, "squeezenet": squeezenet, "mobilenet-v2": mobilenet_v2}


def trained(name: str, dataset: Dataset, count: int, epochs: int, kept: Path) -> tuple[nn.Module, Preprocessing]:
    """The network in evaluation mode; from the file `kept` where an earlier run wrote it."""
    torch.manual_seed(0)
    net = NETS[name](len(dataset.train.classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocessing = preprocessing_from_images(dataset.train.images_nhwc)
    if kept.is_file():
        net.load_state_dict(torch.load(kept, weights_only=True))
    else:
        _train(net, sample(dataset.train, count, 0), preprocessing, epochs)
        torch.save(net.state_dict(), kept)
    return net.eval(), preprocessing


def _train(net: nn.Module, part: LabeledImages, preprocessing: Preprocessing, epochs: int) -> None:
    """AdamW, one cycle, crops and mirrors."""
    images, labels = (torch.from_numpy(array) for array in (part.images_nhwc, part.labels))
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    steps, generator = len(images) // BATCH, torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * steps, pct_start=WARM_UP)
    net.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images), generator=generator)[: steps * BATCH].split(BATCH):
            pixels = (augment(images[rows], CROP, True, generator).float() / 255 - mean) / std
            loss = nn.functional.cross_entropy(net(pixels.permute(0, 3, 1, 2)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.3f}", file=sys.stderr, flush=True)
