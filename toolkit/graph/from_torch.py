"""A PyTorch classifier as one portable ONNX graph: opset 17, BatchNorm folded, names a person can read.

The TorchScript-based exporter is used on purpose: the newer one writes opset 18 at least and turns the global average
pool into a ReduceMean with an axes *input*, which TensorRT 8.5 and 8.6 read as "all axes" without a word.
Where the older one fails, the newer one's file is brought into the common form as anybody's is.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from toolkit.contracts import Preprocessing
from toolkit.errors import ExportError, ToolkitError
from toolkit.graph.edit import free_name
from toolkit.graph.newer_exporter import EXPORTER, NEWER, by_the_newer_exporter, reason_of
from toolkit.graph.normal.folding import folded_at_batch
from toolkit.graph.normal.open_batch import BATCHES, with_open_batch
from toolkit.graph.normal.opset import OPSET
from toolkit.graph.normal.rewrites import inline_parameters, tidy, write_pads
from toolkit.graph.preprocessing import turn_weights_in_place
from toolkit.lazy import needs

if TYPE_CHECKING:
    import onnx
    import torch

WHAT = "the network"
INPUT, OUTPUT = "images", "logits"
ROLES = {
    "Conv": ("weight", "bias"),
    "ConvTranspose": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}


def onnx_from_torch(
    classifier: torch.nn.Module, preprocessing: Preprocessing, metadata: dict[str, str]
) -> onnx.ModelProto:
    """Exports uint8 images (batch, H, W, C) to float32 logits (batch, classes), batch dynamic.

    Args:
        classifier: takes uint8 NHWC, in evaluation mode, on the CPU.
        metadata: written into the ONNX file's metadata_props, so that a lone file still says what it is.

    Raises:
        ExportError: neither of PyTorch's exporters can write the network.
    """
    with needs("export"):
        import onnx
    try:
        model = _by_the_older_exporter(classifier, preprocessing)
    except ToolkitError as error:
        model = by_the_newer_exporter(classifier, preprocessing, error)
        metadata = metadata | {EXPORTER: f"{NEWER}; the older one: {reason_of(error)}"}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    model.producer_name, model.producer_version, model.doc_string = "toolkit", "", ""
    model.graph.name = metadata.get("toolkit.model", "classifier")
    onnx.checker.check_model(model, full_check=True)
    return model


def _by_the_older_exporter(classifier: torch.nn.Module, preprocessing: Preprocessing) -> onnx.ModelProto:
    traced = [_traced(classifier, preprocessing, batch) for batch in BATCHES]
    folded = [folded_at_batch(t, batch, WHAT, keep_layout=True) for t, batch in zip(traced, BATCHES, strict=True)]
    model = with_open_batch(folded, WHAT)
    tidy(model)
    write_pads(model)
    _rename(model.graph)
    turn_weights_in_place(model.graph)
    return model


def _traced(classifier: torch.nn.Module, preprocessing: Preprocessing, batch: int) -> onnx.ModelProto:
    """As the exporter writes it for so many images; Python's own numbers, such as `len(x)`, are theirs."""
    import onnx
    import torch

    example = torch.zeros((batch, *preprocessing.shape), dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), _adaptive_pools(), _no_graph_on_stdout():
        warnings.simplefilter("ignore")  # "legacy exporter", known and wanted; tracer hints about constants
        try:
            torch.onnx.export(
                classifier,
                (example,),
                buffer,  # type: ignore[arg-type]  # a stream is allowed where dynamo=False
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        except Exception as error:  # the exporter raises RuntimeError, its own types and more
            found = next(iter(str(error).splitlines()), type(error).__name__)
            raise ExportError("PyTorch cannot export this network", found=found) from error
    model = onnx.load_from_string(buffer.getvalue())
    inline_parameters(model)
    return model


@contextmanager
def _no_graph_on_stdout() -> Iterator[None]:
    """PyTorch's C++ prints the whole graph there when an operator is not known."""
    import torch

    with mock.patch.object(torch._C, "_jit_onnx_log", return_value=None):
        yield


@contextmanager
def _adaptive_pools() -> Iterator[None]:
    """AdaptiveAvgPool2d to a size that does not divide its input, which the exporter refuses, as two products."""
    import torch
    from torch.nn import functional

    usual = functional.adaptive_avg_pool2d

    def pooled(x: torch.Tensor, output_size: Any) -> torch.Tensor:
        wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
        sizes = [(int(size), int(w or size)) for size, w in zip(x.shape[-2:], wanted, strict=True)]
        if all(size % want == 0 for size, want in sizes):
            return usual(x, output_size)
        rows, columns = (_means_of_windows(size, want) for size, want in sizes)
        tall = torch.matmul(rows, x)
        return torch.matmul(columns, tall.transpose(-1, -2)).transpose(-1, -2)

    with mock.patch.object(functional, "adaptive_avg_pool2d", pooled):
        yield


def _means_of_windows(size: int, want: int) -> torch.Tensor:
    """float32 (want, size): a row a mean. Source: PyTorch, AdaptivePooling.h, start_index and end_index."""
    import torch

    found = torch.zeros(want, size)
    for row in range(want):
        start, end = row * size // want, -(-(row + 1) * size // want)
        found[row, start:end] = 1 / (end - start)
    return found


def readable_name(scope: str) -> str:
    """`/net/stages/stages.0/stages.0.1/conv1/Conv` to `stages.0.1.conv1/Conv`.

    The exporter repeats a Sequential's path in each of its children; outside any module stands the preprocessing.
    """
    *modules, operator = scope.strip("/").split("/")
    path: list[str] = []
    for module in modules:
        if path and module.startswith(path[-1] + "."):
            path[-1] = module
        else:
            path.append(module)
    if not path:
        return f"preprocess/{operator}"
    name = ".".join(path).removeprefix("net.")
    return f"{'head' if name == 'net' else name}/{operator}"


def _rename(graph: Any) -> None:
    """Names nodes by module path, outputs by their node, parameters by module and role; no name twice.

    Other code tells the preprocessing by its names, so a module of the net that is called `preprocess` gives way.
    """
    first = _preprocessing(graph)
    new: dict[str, str] = {INPUT: INPUT, OUTPUT: OUTPUT}
    taken, constants = {INPUT, OUTPUT}, {tensor.name for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        name = readable_name(node.name)
        if index >= first and name.startswith("preprocess"):
            name = f"net.{name}" if "/net/" in node.name else f"net/{name.rpartition('/')[2]}"
        node.name = free_name(name, taken)  # a module that is called twice has two nodes of one scope
        module = node.name.rpartition("/")[0]
        for role, name in zip(ROLES.get(node.op_type, ()), node.input[1:], strict=False):
            if name in constants and name not in new:
                new[name] = free_name(f"{module}.{role}", taken)
        for name in node.input:
            if name in constants and name not in new:
                new[name] = free_name(f"preprocess.{name}" if index < first else name, taken)
        for place, name in enumerate(node.output):
            new.setdefault(name, f"{node.name}_output" + (f"_{place}" if place else ""))
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new[name] for name in node.output]
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    del graph.value_info[:]


def _preprocessing(graph: Any) -> int:
    """How many of the first nodes are Cast, Transpose and normalization: outside any module, one behind the other."""
    name = INPUT
    for index, node in enumerate(graph.node):
        if node.name.count("/") != 1 or name not in node.input:
            return index
        name = node.output[0]
    return len(graph.node)
