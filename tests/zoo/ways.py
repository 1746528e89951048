"""The zoo, settled on images, and the three ways in: a module, a file of the older exporter, a file of today's."""

from __future__ import annotations

import contextlib
import gc
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
import torch._export.utils as export_utils
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from tests.zoo import mobile, plain, tokens
from toolkit.contracts import Float32, Preprocessing, UInt8
from toolkit.exporting.user_onnx import Pixels, opened_from_file
from toolkit.graph.checks import require_portable
from toolkit.graph.from_torch import onnx_from_torch
from toolkit.models.user_network import classifier_of

if TYPE_CHECKING:
    import onnx

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)
PREPROCESSING = Preprocessing(32, 32, 3, MEAN, STD)
WAYS = ("module", "legacy", "today")
REFUSED = {("alexnet", "legacy")}  # by the exporter itself: a pool to a size that does not divide
# Their batch goes to another axis or into another size: in a file for one batch nobody can tell it from the rest.
OPEN = ("multihead", "swin", "gru")
NETS: dict[str, Callable[[], nn.Module]] = {
    "lenet": plain.lenet, "vgg": plain.vgg, "alexnet": plain.alexnet, "resnet-a": partial(plain.resnet, "A"),
    "resnet-b": partial(plain.resnet, "B"), "preresnet": plain.preresnet, "wide-resnet": plain.wide_resnet,
    "resnext": plain.resnext, "densenet": plain.densenet, "googlenet": plain.googlenet,
    "squeezenet": plain.SqueezeNet, "repvgg": plain.repvgg, "yolo": plain.yolo, "nin": plain.nin,
    "se-resnet": mobile.se_resnet, "cbam": mobile.cbam, "mobilenet-v1": mobile.mobilenet_v1,
    "mobilenet-v2": mobile.mobilenet_v2, "mobilenet-v3": mobile.mobilenet_v3, "efficientnet": mobile.efficientnet,
    "mnasnet": mobile.mnasnet, "shufflenet-v2": mobile.shufflenet, "ghostnet": mobile.ghostnet,
    "same-padding": mobile.same_padding, "eca": mobile.eca, "mlp": tokens.mlp, "vit": tokens.Vit,
    "multihead": tokens.Multihead, "swin": tokens.Windows, "mixer": tokens.Mixer, "convmixer": tokens.convmixer,
    "convnext": tokens.convnext, "gru": tokens.Recurrent, "group-norm": tokens.group_normed,
    "weight-standardized": tokens.weight_standardized, "weight-normed": tokens.weight_normed, "odds": tokens.Odds,
}  # fmt: skip


@dataclass(frozen=True)
class Settled:
    """A network in evaluation mode and what it answers on the images."""

    net: nn.Module
    answers: Float32


@cache
def images() -> UInt8:
    """uint8 (48, 32, 32, 3): smooth patterns and noise."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(size=(48, 3, 6, 6)))
    smooth = nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").permute(0, 2, 3, 1).numpy()
    found: UInt8 = (128 + 50 * smooth + 10 * rng.normal(size=smooth.shape)).clip(0, 255).astype(np.uint8)
    return found


def _pixels() -> torch.Tensor:
    values = (images() / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(values.astype(np.float32).transpose(0, 3, 1, 2).copy())


@cache
def settled(name: str) -> Settled:
    """Seeded random weights, BatchNorm settled, the last Linear scaled so that images get different answers."""
    torch.manual_seed(0)
    net, x = NETS[name](), _pixels()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of all batches
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.2)
    net.train()
    with torch.no_grad():
        net(x)
        net.eval()
        heads = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d) and len(m.weight) == plain.CLASSES]
        for head in heads:  # logits about zero, as far apart as those of a trained network
            before = _output_of(head, net, x)
            assert head.bias is not None
            head.bias.copy_((head.bias - before.mean(0)) / before.std())
            head.weight.div_(before.std())
            if (after := net(x)).min() >= 0:  # a ReLU behind it: what varies most over a map would always be the answer
                head.bias.div_(after.mean(0))
                head.weight.div_(after.mean(0)[:, None, None, None])
        answers: Float32 = net(x).numpy()
    return Settled(net, answers)


def _output_of(head: nn.Module, net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(N, classes): before a ReLU that may stand behind it."""
    found: list[torch.Tensor] = []
    with head.register_forward_hook(lambda module, given, output: found.append(output)):
        logits = net(x)
    return found[0].mean((2, 3)) if found[0].ndim == 4 else logits


# What today's exporter translates, by opset, and PyTorch's operators: collected anew in every call, half of its time.
_collected, _materialized = cache(ONNXRegistry.from_torchlib), cache(export_utils._materialize_cpp_cia_ops)


@contextlib.contextmanager
def _quickly() -> Iterator[None]:
    """The exporters without words of their own, and without the collection of garbage, a tenth of their time."""
    with (
        mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(_collected)),
        mock.patch.object(export_utils, "_materialize_cpp_cia_ops", _materialized),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        gc.disable()
        try:
            yield
        finally:
            gc.enable()


def file_of(name: str, way: str, path: Path) -> None:
    """Writes the network as an exporter does: the older one with an open batch, today's for one, as it does untold."""
    net, example = settled(name).net, torch.zeros(2, 3, 32, 32)
    with _quickly():
        if way == "legacy":
            names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
            torch.onnx.export(net, (example,), str(path), dynamo=False, opset_version=14, **names)  # type: ignore[arg-type]
        else:
            shapes = ({0: torch.export.Dim("batch")},) if name in OPEN else None
            torch.onnx.export(
                net, (example,), path, dynamo=True, external_data=False, dynamic_shapes=shapes, verbose=False
            )


def graph_of(name: str, way: str, folder: Path) -> onnx.ModelProto:
    """The fp32 graph that the toolkit makes of it."""
    if way == "module":
        graph = onnx_from_torch(classifier_of(settled(name).net, PREPROCESSING), PREPROCESSING, {})
        require_portable(graph)
        return graph
    file_of(name, way, folder / "theirs.onnx")
    opened = opened_from_file(folder / "theirs.onnx", Pixels(MEAN, STD))
    opened.require_same(images())
    return opened.graph


def net_of(name: str) -> nn.Module:
    """The network before it is settled, as the import path `tests.zoo.ways:net_of` builds it."""
    return NETS[name]()
