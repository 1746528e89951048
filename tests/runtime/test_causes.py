"""Claims about TensorRT's words: each was written by a TensorRT, in the thread beside it, and is understood."""

from __future__ import annotations

import pytest

from toolkit.errors import BackendUnavailable
from toolkit.runtime.driver import Driver
from toolkit.runtime.trt.causes import CAUSES, cause_of
from toolkit.runtime.trt.module import find_tensorrt

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
    # 8.6.1, 10.6.0 and RTX 1.7.1 over a libcuda that lacks what they call
    (("CUDA initialization failure with error: 36. Please check your CUDA installation: "
      "http://docs.nvidia.com/cuda/cuda-installation-guide-linux/index.html",), "driver is older"),
    (("createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: 36)",),
     "driver is older"),
    (("Error reading CUDA GPU properties: In getCurrentCC at /_src/runtime/dispatch/planHeaders.cpp:130 (cudaError "
      "36: API call is not supported in the installed CUDA driver) Ensure that the GPU driver is installed "
      "and up to date.",),
     "driver is older"),
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
    (("[Matrix Multiply]: only activation types allowed as input to this layer",), "quantizes a bias"),
    # What users of a bundle do wrong, as each parser says it. 8.6: "In node N (function): CODE: desc", desc from
    # onnx-tensorrt 8.6-GA and found in libnvonnxparser.so.8 of 8.6.0; 10: the words of 10.1-GA that are found in
    # libnvonnxparser.so.10 of 10.6.0, too; RTX: said by TensorRT-RTX 1.7.1 when it was given such a file.
    # model.int8-cpu.onnx: 8.6 notInvalidType, 10.1 notInvalidType, RTX
    (("In node 0 (notInvalidType): UNSUPPORTED_NODE: Found invalid input type of UINT8",), "computes with uint8"),
    (("In node 0 with name: preprocess/Pad and operator: Pad (notInvalidType): UNSUPPORTED_NODE: Assertion failed: "
      "false: Found unsupported input type of UINT8",), "computes with uint8"),
    (("In node 0 with name: preprocess/Pad and operator: Pad (checkNotInvalidType): UNSUPPORTED_NODE: Assertion "
      "failed: "
      "status.is_success(): Found unsupported input type of UINT8",), "computes with uint8"),
    # 8.6 parseGraph, a uint8 tensor between two nodes
    (('In node 1 (parseGraph): UNSUPPORTED_NODE: Assertion failed: legalUINT8 && "TensorRT does not support '
      'UINT8 types '
      'for intermediate tensors!"',), "computes with uint8"),
    # 10.6 and RTX parse uint8 zero points of 0 and take them for int8
    (("TensorRT doesn't support QuantizeLinear/DequantizeLinear with UINT8 zero_point. TensorRT will use INT8 "
      "instead.",),
     "computes with uint8"),
    (("onnxOpImporters.cpp:1980: TensorRT supports QuantizeLinear/DequantizeLinear with UINT8 zero_point only on DLA "
      "(version >= 3.16). Defaulting to INT8 instead. To import as UINT8, set the kIMPORT_UINT8_QUANTIZATION flag.",),
     "computes with uint8"),
    # 10.1 notInvalidType, of a type that is not uint8
    (("In node 3 with name: r and operator: Relu (notInvalidType): UNSUPPORTED_NODE: Assertion failed: false: Found "
      "unsupported input type of BOOL",), "does not compute with the type"),
    # asymmetric: 8.6, 10.1 (10.6 has it, too), RTX
    (('In node 0 (QuantDequantLinearHelper): INVALID_NODE: Assertion failed: shiftIsAllZeros(zeroPoint) && "TensorRT '
      'only supports symmetric quantization. The zero point for the QuantizeLinear/DequantizeLinear operator '
      'must be all '
      'zeros."',), "quantized asymmetrically"),
    (("In node 0 with name: q and operator: QuantizeLinear (QuantDequantLinearHelper): INVALID_NODE: Assertion failed: "
      "shiftIsAllZeros(zeroPoint): TensorRT only supports symmetric quantization. The zero point for the "
      "QuantizeLinear/DequantizeLinear operator must be all zeros.",), "quantized asymmetrically"),
    (("In node 0 with name: the q and operator: QuantizeLinear (buildZeroPointTensor): INVALID_NODE: Assertion failed: "
      "shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported. Please set "
      "kENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA to enable asymmetric quantization if it is on DLA.",),
     "quantized asymmetrically"),
    # FP16 scales on 8.6
    (('In node 9 (QuantDequantLinearHelper): INVALID_NODE: Assertion failed: scaleAllPositive && "Scale '
      'coefficients must '
      'all be positive"',), "FP16 and this is TensorRT 8"),
    # more zero points than scales: 8.6, 10.1
    (('In node 0 (QuantDequantLinearHelper): INVALID_NODE: Assertion failed: zeroPointSize == scaleSize && "The '
      'scale and '
      'zero point must have the same volume."',), "another number of zero points"),
    # an int16 zero point, RTX; 8.6 and 10.6 have "Found unsupported datatype (" and ") when importing initializer: "
    (("In node -1 with name:  and operator:  (importInitializers): INVALID_GRAPH: Failed to import initializer: "
      "In node -1 "
      "with name:  and operator:  (importInitializers): UNSUPPORTED_NODE: Assertion failed: "
      "ctx->getWeightsContext().convertOnnxWeights(initializer, &weights): Failed to import initializer: z",
      "WeightsContext.cpp:519: Found unsupported datatype (5) when importing initializer: z"), "a type that TensorRT"),
    # the data file beside the ONNX file: 8.6 (its error and its log), RTX cut short, RTX gone
    (('In node -1 (parseGraph): UNSUPPORTED_NODE: Assertion failed: convertOnnxWeights(initializer, &weights, ctx) && '
      '"Failed to import initializer."', "Failed to open file: /bundle/w.bin"), "the file beside it"),
    (("WeightsContext.cpp:222: ONNX external weights offset/length out of range for file: /bundle/w.bin (offset=0, "
      "length=432, file size=100)",), "the file beside it"),
    (("WeightsContext.cpp:203: Failed to open file: /bundle/w.bin",), "the file beside it"),
    # 10.6
    (("Relative paths to parent (../) are not allowed in ONNX external weights! Normalized path is: ../w.bin",),
     "a folder above"),
    # cut short, no ONNX, or not there: 8.6 and 10.1 (with "!"), RTX
    (("Failed to parse ONNX model from file: /bundle/model.onnx",), "cut short"),
    (("Failed to parse ONNX model from file: /bundle/model.onnx!",), "cut short"),
    (("(deserializeOnnxModel): MODEL_DESERIALIZE_FAILED: Assertion failed: model->ParseFromCodedStream(&codedInput): "
      "Failed to parse the ONNX model.",), "cut short"),
    (("In node -1 with name:  and operator:  (parseFromFile): INVALID_VALUE: Assertion failed: "
      "stat(onnxModelFile, &sb) "
      "== 0 && S_ISREG(sb.st_mode): Input file cannot be found, or is not a regular file: /bundle/model.onnx",),
     "or is not there"),
    # RTX: dynamic quantization, whose operators every parser lacks
    (("In node 0 with name: y and operator: ConvInteger (checkConvInteger): UNSUPPORTED_NODE: false",), "Q/DQ only"),
    (("In node 0 with name: q and operator: DynamicQuantizeLinear (checkDynamicQuantizeLinear): "
      "UNSUPPORTED_NODE: false",),
     "Q/DQ only"),
    # RTX
    (("In node 0 with name: y and operator: Konv (checkFallbackPluginImporter): INVALID_NODE: creator && \"Plugin not "
      "found, are the plugin name, version, and namespace correct?\"",), "no such operator"),
    (("In node 0 with name: y and operator: MaxPool (emptyOutputChecker): UNSUPPORTED_NODE: This version of TensorRT "
      "doesn't support mode than 1 outputs for MaxPool nodes!",), "not the way the file uses it"),
    (("In node 0 with name: y and operator: BatchNormalization (checkBatchNormalization): UNSUPPORTED_NODE: "
      "!isTraining "
      '&& "This version of TensorRT does not support training_mode == 1 in BatchNormalization."',), "training mode"),
    # 8.6
    (('In node 4 (importDropout): UNSUPPORTED_NODE: Assertion failed: !trainingMode[0] && "TensorRT does not '
      'support the '
      'Dropout operator in training mode."',), "training mode"),
    # RTX
    (("In node -1 with name:  and operator:  (broadcastTensor): UNSUPPORTED_NODE: Assertion failed: "
      "ctx->getOpsetVersion() >= 7: Pre-opset 7 broadcasting is unsupported in this version of the ONNX parser",),
     "opset before 7"),
    (("In node -1 with name:  and operator:  (importInput): UNSUPPORTED_NODE: Assertion failed: "
      'convertDtype(onnxDtype.elem_type(), &trtDtype) && "Failed to convert ONNX date type to TensorRT data type."',),
     "such as strings"),
    # 8.6
    (('In node 2 (importCast): INVALID_NODE: Assertion failed: convertDtype(onnxType, &newType) && '
      '"Unsupported data '
      'type for the Cast operator!"',), "such as strings"),
    # RTX; 8.6.0 and 10.6.0 have the words, too
    (("IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no "
      "optimization profile has been defined. In validate at /_src/optimizer/api/network.cpp:4023)",), "no "
      "range for it"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "means"), SAID)
def test_what_tensorrt_said_is_understood(words: tuple[str, ...], means: str) -> None:
    cause = cause_of(words)
    assert cause is not None
    assert means in cause.means
    assert cause.cure


def test_remarks_that_go_with_every_good_build_are_no_cause() -> None:
    # 8.6.0 of a file with int64 shapes; RTX 1.7.1 of a constant of uint8
    cast = "Your ONNX model has been generated with INT64 weights, while TensorRT does not natively support INT64. "
    assert cause_of([f"{cast}Attempting to cast down to INT32."]) is None
    assert cause_of(["ModelImporter.cpp:416: UINT8 data preprocess.byte is being converted to INT32."]) is None


def test_the_advice_on_fp16_scales_leads_out_of_the_failure() -> None:
    cause = cause_of(["Scale coefficients must all be positive"])
    assert cause is not None
    assert "build model.int8.onnx" in cause.cure
    assert "toolkit.export" not in cause.cure  # it makes the very file whose scales are FP16


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
