"""Claims about TensorRT's words: each was written by a TensorRT, in the thread beside it, and is understood."""

from __future__ import annotations

import pytest

from toolkit.errors import BackendUnavailable
from toolkit.runtime.causes import CAUSES, cause_of
from toolkit.runtime.driver import Driver
from toolkit.runtime.trt import find_tensorrt

NO_KERNEL = "10: [optimizer.cpp::computeCosts::2011] Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[2337...Reshape_1696]}.)"  # noqa: E501
SAID = [
    # open-mmlab/mmdeploy 48, TensorRT 8.2
    (("Skipping tactic 0 due to insuficient memory on requested size of 1459519488 detected for tactic 0.", NO_KERNEL),
     "memory ran out"),
    # open-mmlab/mmdeploy 1059, Jetson NX
    (("Tactic Device request: 4364MB Available: 3788MB. Device memory is insufficient to use tactic.", NO_KERNEL),
     "memory ran out"),
    # marcoslucianops/DeepStream-Yolo 366
    (("2: [virtualMemoryBuffer.cpp::resizePhysical::160] Error Code 2: OutOfMemory (no further information)",),
     "memory ran out"),
    # NVIDIA/TensorRT 4258, TensorRT 10.3
    (("Error Code: 9: Skipping tactic 0x0000000000000000 due to exception [tunable_graph.cpp:create:117] autotuning: "
      "User allocator error allocating 15485030400-byte buffer", NO_KERNEL), "memory ran out"),
    # NVIDIA/TensorRT 840
    (("Cuda Error in allocate: 2 (out of memory)",), "memory ran out"),
    # NVIDIA/TensorRT 2929: nothing about memory
    ((NO_KERNEL,), "no kernel of this TensorRT computes the layer"),
    # NVIDIA/TensorRT 2879, 8.6
    (("CUDA initialization failure with error: 35. Please check your CUDA installation:  "
      "http://docs.nvidia.com/cuda/cuda-installation-guide-linux/index.html",), "driver is older than the CUDA"),
    # NVIDIA/TensorRT 1786
    (("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=0",), "driver is older"),
    # NVIDIA/TensorRT 149
    (("Cuda initialization failure with error 100. Please check cuda installation:",), "the driver sees no GPU"),
    # OE4T/meta-tegra 1281
    (("libnvdla_compiler.so: cannot open shared object file: No such file or directory",), "library for the DLA"),
    # onnx/tensorflow-onnx 1632
    (("DLA Layer conv2d_32/Conv2D does not support dynamic shapes in any dimension.",), "the DLA takes no open batch"),
    # NVIDIA/TensorRT 2318
    (("setDefaultDeviceType was called but no layer in the network can run on DLA.",), "no layer of this network"),
    # NVIDIA/TensorRT 1827
    (("4: [standardEngineBuilder.cpp::initCalibrationParams::1402] Error Code 4: Internal Error (Calibration failure "
      "occurred with no scaling factors detected. This could be due to no int8 calibrator or insufficient custom "
      "scales for network layers. Please see int8 sample to setup calibration correctly.)",),
     "no range from the calibration"),
    # NVIDIA/retinanet-examples 314
    (("6: The engine plan file is not compatible with this version of TensorRT, expecting library version 8.0.0 got "
      "8.0.1, please rebuild.",), "another version of TensorRT built this plan"),
    # NVIDIA/TensorRT 2195, 8.4
    (("1: [stdArchiveReader.cpp::StdArchiveReader::35] Error Code 1: Serialization (Serialization assertion "
      "safeVersionRead == safeSerializationVersion failed.Version tag does not match. Note: Current Version: 0, "
      "Serialized Engine Version: 96)",
      "4: [runtime.cpp::deserializeCudaEngine::50] Error Code 4: Internal Error (Engine deserialization failed.)"),
     "another version of TensorRT built this plan"),
    # lix19937/tensorrt-insight 65
    (("1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization (Serialization assertion "
      "magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",), "these bytes are no plan"),
    # onnx/onnx-tensorrt 800
    (("3: getPluginCreator could not find plugin: Round version: 1",), "no such operator"),
    # open-mmlab/mmdeploy 2398
    (('In node 972 (importFallbackPluginImporter): UNSUPPORTED_NODE: Assertion failed: creator && "Plugin not found, '
      'are the plugin name, version, and namespace correct?"',), "no such operator"),
    # TrojanXu/onnxparser-trt-plugin-sample 2
    (("UNSUPPORTED_NODE: No importer registered for op: GridSampler",), "no such operator"),
    # collabora/WhisperLive 277
    (("IElementWiseLayer with inputs mlp/fc/ELEMENTWISE_SUM_0_output_0 and mlp/SHUFFLE_1_output_0: first input has "
      "type Half but second input has type Float.",), "tensors of two types"),
    # the-database/mpv-AnimeJaNai 36
    (("Input 0's element type (half) differs from input 1's element type (float).",), "tensors of two types"),
    # NVIDIA/TensorRT 334; microsoft/onnxruntime 14229 has it for a bias
    (("[Matrix Multiply]: only activation types allowed as input to this layer",), "quantises a bias"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "means"), SAID)
def test_what_tensorrt_said_is_understood(words: tuple[str, ...], means: str) -> None:
    cause = cause_of(words)
    assert cause is not None
    assert means in cause.means
    assert cause.cure


def test_what_is_not_known_has_no_cause() -> None:
    assert cause_of(["Engine generation completed in 0.3 seconds."]) is None
    assert cause_of([]) is None


def test_evidence_is_believed_before_the_symptom_whatever_comes_first() -> None:
    memory = "Cuda Runtime (out of memory)"
    assert cause_of([NO_KERNEL, memory]) == cause_of([memory, NO_KERNEL]) == CAUSES[0]


def test_no_sign_belongs_to_two_causes() -> None:
    signs = [sign for cause in CAUSES for sign in cause.signs]
    assert len(set(signs)) == len(signs)


def test_a_tensorrt_that_lacks_the_dlas_library_says_how_to_get_it() -> None:
    def load(name: str) -> object:
        if name == "tensorrt":
            raise ImportError("libnvdla_compiler.so: cannot open shared object file: No such file or directory")
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with pytest.raises(BackendUnavailable) as caught:
        find_tensorrt(load, Driver(False, "there is no NVIDIA driver"))
    assert "--runtime nvidia" in str(caught.value.fix)
