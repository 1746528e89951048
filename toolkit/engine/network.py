"""A parsed network: how it is typed, what its inputs may be, what goes into the sidecar about it."""

from __future__ import annotations

from typing import Any

from toolkit.errors import EngineError

Profile = dict[str, list[list[int]]]

# numpy's names, by TensorRT's: trt.nptype fails on some versions and types, and the integers move between majors.
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "float8", "BOOL": "bool"}


def has_strong_typing(trt: Any) -> bool:
    """Whether networks can take their types from the file: from 10 on, and in RTX; 8 needs builder flags."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def network_flags(trt: Any, weak: bool = False) -> int:
    """The argument of create_network: strong typing wherever it exists, explicit batch where that is still a flag.

    Args:
        weak: not strongly typed although it could be, for implicit INT8 on DLA.
    """
    flags = trt.NetworkDefinitionCreationFlag
    name = "STRONGLY_TYPED" if has_strong_typing(trt) and not weak else "EXPLICIT_BATCH"
    return 1 << int(getattr(flags, name)) if hasattr(flags, name) else 0


def precision_flags(trt: Any, network: Any) -> tuple[str, ...]:
    """Names of the builder flags that let a weakly typed network (8.x) keep the types of its file.

    A file with QuantizeLinear needs INT8, and FP16 for the rest; one with float16 tensors needs FP16. Strongly typed
    networks refuse such flags.
    """
    if has_strong_typing(trt):
        return ()
    layers = layers_of_network(network)
    if any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
        return ("FP16", "INT8")
    outputs = (layer.get_output(i) for layer in layers for i in range(layer.num_outputs))
    inputs = (network.get_input(i) for i in range(network.num_inputs))
    return ("FP16",) if any(tensor.dtype == trt.DataType.HALF for tensor in (*inputs, *outputs)) else ()


def share_profile(trt: Any, config: Any) -> None:
    """Lets several execution contexts use one profile, which 8.6 does on request and 10 and later do always.

    Without it an 8.6 engine answers one thread at a time and keeps a CUDA graph of one batch size only.
    """
    if not has_strong_typing(trt) and hasattr(getattr(trt, "PreviewFeature", None), "PROFILE_SHARING_0806"):
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def layers_of_network(network: Any) -> list[Any]:
    """Its layers, in order."""
    return [network.get_layer(i) for i in range(network.num_layers)]


def profile_from_network(network: Any, batch: tuple[int, int, int]) -> Profile:
    """{input: [min, opt, max]} with shapes as lists, the batch put where the network leaves axis 0 open.

    Raises:
        EngineError: another axis is open too.
    """
    profile = {}
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        shape = [int(n) for n in tensor.shape]
        if any(n < 0 for n in shape[1:]):
            raise EngineError(
                f"input {tensor.name} is dynamic in more than its batch",
                found=shape,
                allowed="one open axis, the first",
                fix="export the model with fixed height, width and channels",
            )
        profile[tensor.name] = [[n if size < 0 else size for size in shape] for n in batch]
    return profile


def ends_as_dict(network: Any) -> dict[str, Any]:
    """Name, dtype and shape of the network's inputs and outputs, for the sidecar."""
    return {
        "inputs": [_tensor(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(i)) for i in range(network.num_outputs)],
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    name = tensor.dtype.name
    return {"name": tensor.name, "dtype": _DTYPES.get(name, name.lower()), "shape": [int(n) for n in tensor.shape]}
