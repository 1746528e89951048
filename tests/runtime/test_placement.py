"""Claims about where nodes ran: read off real profiles, and a rule for what may stay on the CPU."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from toolkit.runtime.ort.profile import CPU, Node, nodes_from_profile, obstacle_to_trusting, placement_in_words

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
CONV = Node(CUDA, "Conv", "stem")


def profile_of(model: bytes, images: np.ndarray, folder: Path, calls: int = 1) -> Path:
    """A real profile of some calls on the CPU, without optimizations."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "p")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=[CPU])
    for _ in range(calls):
        session.run(None, {session.get_inputs()[0].name: images})
    return Path(session.end_profiling())


def test_every_node_of_the_graph_is_found_once_whatever_the_number_of_calls(
    tiny_graph: onnx.ModelProto, tmp_path: Path
) -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    nodes = nodes_from_profile(profile_of(tiny_graph.SerializeToString(), images, tmp_path, calls=3))
    assert Counter(node.operator for node in nodes) == Counter(node.op_type for node in tiny_graph.graph.node)
    assert {node.name for node in nodes} == {node.name for node in tiny_graph.graph.node}
    assert {node.provider for node in nodes} == {CPU}


def test_nodes_without_names_are_counted_apart(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    relus = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(relus, "relus", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert len(nodes_from_profile(profile_of(model.SerializeToString(), np.zeros(4, np.float32), tmp_path))) == 2


def test_copies_between_devices_are_no_nodes(tmp_path: Path) -> None:
    events = [
        {"name": f"{name}_kernel_time", "cat": "Node", "args": {"op_name": op, "provider": CUDA, "node_index": "1"}}
        for name, op in (("copy", "MemcpyFromHost"), ("stem", "Conv"))
    ] + [{"name": "model_run", "cat": "Session"}, {"name": "stem_fence_before", "args": {"op_name": "Conv"}}]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(events))
    assert nodes_from_profile(path) == (CONV,)


def test_all_on_the_provider_is_no_obstacle() -> None:
    assert obstacle_to_trusting((CONV,), CUDA) == ""
    assert placement_in_words((CONV,), CUDA) == "1 of 1 nodes on CUDA"


@pytest.mark.parametrize("operator", ["Conv", "Add", "QuantizeLinear", "Cast"])
def test_a_node_of_pixels_on_the_cpu_is_an_obstacle_with_its_name(operator: str) -> None:
    nodes = (CONV, Node(CPU, operator, "it"))
    assert obstacle_to_trusting(nodes, CUDA) == f"the CPU computes 1 of 2 nodes: {operator} it"


def test_nodes_that_handle_shapes_may_stay_on_the_cpu_and_are_named() -> None:
    nodes = (CONV, Node(CPU, "Shape", "s"), Node(CPU, "Gather", "g"))
    assert obstacle_to_trusting(nodes, CUDA) == ""
    assert placement_in_words(nodes, CUDA) == "1 of 3 nodes on CUDA, 2 on CPU (Shape s, Gather g)"


def test_what_tensorrt_left_to_cuda_is_named_and_no_obstacle() -> None:
    nodes = (Node(TENSORRT, "TRTKernel_graph_0", "all"), Node(CUDA, "Cast", "c"))
    assert obstacle_to_trusting(nodes, TENSORRT) == ""
    assert placement_in_words(nodes, TENSORRT) == "1 of 2 nodes on Tensorrt, 1 on CUDA (Cast c)"


def test_a_provider_that_computes_nothing_is_an_obstacle() -> None:
    assert obstacle_to_trusting((CONV,), TENSORRT) == "Tensorrt computes none of 1 nodes"
    assert obstacle_to_trusting((), CUDA) == "CUDA computes none of 0 nodes"


def test_many_nodes_are_counted_and_the_first_named() -> None:
    nodes = tuple(Node(CPU, "Conv", f"c{i}") for i in range(9))
    words = "the CPU computes 9 of 9 nodes: Conv c0, Conv c1, Conv c2, Conv c3, Conv c4 and 4 more"
    assert obstacle_to_trusting(nodes, CUDA) == words
