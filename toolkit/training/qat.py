"""Training with fake quantization: a ResNet with its norms folded, and rounding where its Q/DQ pairs will stand.

Sources: straight-through gradients, Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; a scale that is learned, Esser et al., "Learned Step Size Quantization",
ICLR 2020, equations 1 to 3, for the activations. Weight scales are not learned: they follow from the weights by the
rule that the export has.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.contracts import WeightScales
from toolkit.errors import ModelError
from toolkit.models.resnet import BasicBlock, Classifier, ResNet

LOWEST, HIGHEST = -128, 127
REFRESH = 32  # steps between two computations of the weight scales: they move slowly, and the search costs
INPUT = "input"  # where the normalized images are quantized


@dataclass(frozen=True)
class FakeQuantization:
    """What is rounded.

    Attributes:
        scales: the first scale of each activation, by the path of the module that makes it; `INPUT` for the images.
        convolutions: paths of the modules whose weights are quantized, per output channel.
        weight_scales: float32 weights (C_out, ...) to scales (C_out,): the rule of the export.
    """

    scales: Mapping[str, float]
    convolutions: tuple[str, ...]
    weight_scales: WeightScales


def _rounded(x: Tensor) -> Tensor:
    """round(x), half to even as QuantizeLinear has it, with the gradient of x."""
    return x + (x.round() - x).detach()


class QatScale(nn.Module):
    """x to scale * clamp(round(x / scale), -128, 127); the scale is a parameter."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        factor = 1 / math.sqrt(x[0].numel() * HIGHEST)  # of the scale's gradient; Esser et al., section 2.2
        scale = self.scale.abs() + torch.finfo(torch.float32).tiny
        scale = scale * factor + (scale * (1 - factor)).detach()
        return _rounded((x / scale).clamp(LOWEST, HIGHEST)) * scale


class QuantizedConv2d(nn.Conv2d):
    """A convolution whose weights are rounded; their scales are computed anew every `REFRESH` training steps."""

    scales: Tensor

    def __init__(self, conv: nn.Conv2d, weight_scales: WeightScales) -> None:
        shape: Any = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)  # torch types them wider
        super().__init__(conv.in_channels, conv.out_channels, *shape)
        self.load_state_dict(conv.state_dict())
        self.weight_scales, self.steps = weight_scales, 0
        self.register_buffer("scales", torch.ones(conv.out_channels, 1, 1, 1))
        self.refresh()

    def refresh(self) -> None:
        """Scales of the weights as they are now."""
        weights = self.weight.detach().float().cpu().contiguous().numpy()
        scales = torch.from_numpy(self.weight_scales(weights)).reshape(-1, 1, 1, 1)
        self.scales.copy_(scales)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
            if self.steps % REFRESH == 0:
                self.refresh()
        weight = _rounded((self.weight / self.scales).clamp(LOWEST, HIGHEST)) * self.scales
        out: Tensor = self._conv_forward(x, weight, self.bias)
        return out


def folded(net: ResNet) -> ResNet:
    """A copy in evaluation mode's arithmetic: every BatchNorm is part of its convolution, which has a bias now."""
    net = copy.deepcopy(net).eval()
    parts: list[tuple[nn.Module, str, str]] = [(net.stem, "0", "1")]
    for block in (module for module in net.modules() if isinstance(module, BasicBlock)):
        parts += [(block, "conv1", "bn1"), (block, "conv2", "bn2")]
        if isinstance(block.shortcut, nn.Sequential):
            parts.append((block.shortcut, "0", "1"))
    for parent, conv, norm in parts:
        plain, batch_norm = parent.get_submodule(conv), parent.get_submodule(norm)
        assert isinstance(plain, nn.Conv2d)
        assert isinstance(batch_norm, nn.BatchNorm2d)
        parent.set_submodule(conv, nn.utils.fusion.fuse_conv_bn_eval(plain, batch_norm))
        parent.set_submodule(norm, nn.Identity())
    return net


def fake_quantized(classifier: Classifier, what: FakeQuantization) -> Classifier:
    """A trainable copy that rounds as the INT8 file will.

    Raises:
        ModelError: not a ResNet of this toolkit.
    """
    if not isinstance(classifier.net, ResNet):
        raise ModelError("only this toolkit's ResNets are trained with fake quantization", found=type(classifier.net))
    net = folded(classifier.net)
    for path in what.convolutions:
        conv = net.get_submodule(path)
        assert isinstance(conv, nn.Conv2d)
        net.set_submodule(path, QuantizedConv2d(conv, what.weight_scales))
    for path, scale in what.scales.items():
        if path != INPUT:
            net.set_submodule(path, nn.Sequential(net.get_submodule(path), QatScale(scale)))
    whole = nn.Sequential(OrderedDict([(INPUT, QatScale(what.scales[INPUT])), ("net", net)]))
    return Classifier(whole, classifier.scale.clone(), classifier.shift.clone(), classifier.contiguous)


def refreshed(classifier: Classifier) -> Classifier:
    """The same module with weight scales of its present weights, as the export will have them."""
    for module in classifier.modules():
        if isinstance(module, QuantizedConv2d):
            module.refresh()
    return classifier


def qat_scales_of(classifier: Classifier) -> dict[str, float]:
    """The scales of the activations by the path of the module that makes them; the inverse of `fake_quantized`."""
    found = {}
    for name, module in classifier.net.named_modules():
        if isinstance(module, QatScale):
            path = INPUT if name == INPUT else name.removeprefix("net.").rpartition(".")[0]
            found[path] = abs(float(module.scale.detach()))
    return found


def float_weights(classifier: Classifier, like: ResNet) -> dict[str, Tensor]:
    """The trained weights as a state of `like`, whose norms become the identity: folding them gives these weights.

    A norm divides by sqrt(running_var + eps): with running_var = 1 - eps, weight 1 and mean 0 it only adds its bias.
    """
    source = {
        name.removeprefix("net."): module
        for name, module in classifier.net.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    state = {name: value.clone() for name, value in like.state_dict().items()}
    # In a ResNet every norm follows its convolution.
    pairs: dict[str, str] = {}
    last = ""
    for name, module in like.named_modules():
        if isinstance(module, nn.Conv2d):
            last = name
        elif isinstance(module, nn.BatchNorm2d):
            pairs[last] = name
            state[f"{name}.weight"].fill_(1)
            state[f"{name}.running_mean"].fill_(0)
            state[f"{name}.running_var"].fill_(1 - module.eps)
    for name, module in source.items():
        path = name if name in pairs or name == "fc" else name.rpartition(".")[0]  # a shortcut with a scale behind it
        assert module.bias is not None
        state[f"{path}.weight"] = module.weight.detach().cpu().contiguous().clone()
        state[f"{pairs.get(path, path)}.bias"] = module.bias.detach().cpu().clone()
    return state
