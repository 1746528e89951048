"""What TensorRT's words mean: a row for each failure that people meet, with its cause and what to do about it.

TensorRT reports a build that ran out of memory as "could not find any implementation", a missing library as an import
error and a foreign plan as a tag that does not match. The rows are in the order in which they are believed: evidence
before symptom. The words were read in the threads named beside each row, in the parsers' sources (onnx-tensorrt, 8.6-GA
and 10.1-GA), in the libraries of 8.6.0 and 10.6.0, or seen on TensorRT-RTX 1.7.1. Advice holds in every state in which
the words are said: none sends anybody back to the command that failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why something failed, as a clause, and what to do; `signs` are parts of TensorRT's own messages."""

    means: str
    cure: str
    signs: tuple[str, ...]


# github.com/onnx/onnx-tensorrt 758, open-mmlab/mmdeploy 48 and 1059, NVIDIA/TensorRT 477 and 4258,
# marcoslucianops/DeepStream-Yolo 366. "insuficient" is how TensorRT spelt it up to 8.4.
OUT_OF_MEMORY = Cause(
    "the memory ran out",
    "close what else uses the GPU (on a Jetson it shares the RAM: the desktop, too), lower the largest batch "
    "(`batch=(1, 4, 8)`), or set `workspace_mib=` to a part of what is free; `optimization_level=2` tries fewer "
    "kernels",
    (
        "insuficient memory on requested size",
        "insufficient memory on requested size",
        "Device memory is insufficient to use tactic",
        "Cuda Runtime (out of memory)",
        "Error Code 2: OutOfMemory",
        "could not be allocated. There may not be enough free memory",
        "error allocating",
        "out of memory",
    ),
)

CAUSES = (
    OUT_OF_MEMORY,
    # OE4T/meta-tegra 1281, NVIDIA/nvidia-container-runtime 181.
    Cause(
        "TensorRT's library for the DLA is missing, which a Jetson's host system lends to its containers",
        "start the container with --runtime nvidia on the Jetson itself, or install what JetPack's "
        "nvidia-l4t-dla-compiler holds",
        ("libnvdla_compiler.so",),
    ),
    # NVIDIA/TensorRT 2319, onnx/tensorflow-onnx 1632.
    Cause(
        "the DLA takes no open batch",
        "build for one batch size, as in `batch=(4, 4, 4)`",
        ("does not support dynamic shapes in any dimension",),
    ),
    Cause(
        "no layer of this network can run on the DLA",
        "leave `dla_core=` out: the GPU would do all the work",
        ("no layer in the network can run on DLA",),
    ),
    # NVIDIA/TensorRT 1827, ELS-RD/transformer-deploy 43, tensorflow/tensorrt 119.
    Cause(
        "TensorRT took no range from the calibration cache: its header is of another version, or its tensors have "
        "other names than the ONNX file's",
        "export the bundle again, with `int8=True`, and build from it",
        ("no scaling factors detected", "Calibration table does not match", "failed while configuring INT8"),
    ),
    # marcoslucianops/DeepStream-Yolo 77, NVIDIA/retinanet-examples 314, NVIDIA/TensorRT 2195, GeekAlexis/FastMOT 127.
    Cause(
        "another version of TensorRT built this plan",
        "build it again on this machine: `toolkit.build`",
        ("plan file is not compatible with this version of TensorRT", "Version tag does not match"),
    ),
    # NVIDIA/TensorRT 1384, lix19937/tensorrt-insight 65.
    Cause(
        "these bytes are no plan of this TensorRT: another file, one that was cut short or copied as text, or a plan "
        "of TensorRT-RTX given to TensorRT",
        "copy it again in binary, or build it again: `toolkit.build`",
        ("Magic tag does not match", "magicTagRead == kMAGIC_TAG"),
    ),
    # RTX 1.7.1; 8.6 and 10.6 have both words too. The number is ONNX's own, as in TensorProto.DataType.
    Cause(
        "a constant of the file has a type that TensorRT does not read (the number is ONNX's: 5 is int16)",
        "quantize to 8 bits, and store everything else as float32 or float16",
        ("Found unsupported datatype (",),
    ),
    Cause(  # 10.6, WeightsContext
        "the file keeps its weights in a folder above its own, which TensorRT does not follow",
        "save the ONNX file and its data file in one folder",
        ("Relative paths to parent (../)",),
    ),
    # RTX 1.7.1 for the first three; 8.6-GA and 10.6 for the others.
    Cause(
        "weights of the ONNX file could not be read: the file beside it that holds them is missing or cut short",
        "copy the ONNX file together with its data file",
        (
            "Failed to open file: ", "ONNX external weights offset/length out of range", "Failed to import initializer",
            "Failed to read weights from external file", "Unexpected size for the external weights",
            "Size mismatch when importing initializer",
        ),
    ),
    Cause(  # RTX 1.7.1
        "the file is in the operator format of quantization (QLinearConv, ConvInteger), and TensorRT takes Q/DQ only",
        "quantize the float32 file with `toolkit.export(options=ExportOptions(int8=True))`",
        ("QLinearConv", "QLinearMatMul", "QLinearAdd", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
    ),
    # 8.6-GA, notInvalidType and ModelImporter; 10.1-GA; RTX 1.7.1 for the second and the last.
    Cause(
        "the file computes with uint8, which TensorRT takes for a network's inputs and outputs alone: it is the file "
        "for ONNX Runtime's CPU kernels, or one whose images are not cast before they are used",
        "build model.int8.onnx or model.int8-fp16.onnx, as `toolkit.build` does by itself; in a file of your own cast "
        "uint8 images first, and quantize to int8 with zero points of 0",
        (
            "Found invalid input type of UINT8", "Found unsupported input type of UINT8", "!= DataType::kUINT8",
            "does not support UINT8 types for intermediate tensors", "UINT8 zero_point",
        ),
    ),
    # onnx/onnx-tensorrt 800, open-mmlab/mmdeploy 2398 and 2758, TrojanXu/onnxparser-trt-plugin-sample 2; RTX's words
    # are those of TensorRT 10.
    Cause(
        "TensorRT has no such operator",
        "export the model without it, from operators that onnx-tensorrt's docs/operators.md lists",
        ("Plugin not found", "could not find plugin", "No importer registered for op"),
    ),
    # RTX 1.7.1; collabora/WhisperLive 277 and the-database/mpv-AnimeJaNai 36 for the last two.
    Cause(
        "a layer gets tensors of two types, and a strongly typed network casts nothing by itself",
        "cast weights and biases together with their layer's input, or build from the bundle's own files",
        (
            "must be of same type", "must have same input types", "but second input has type",
            "element type (half) differs from",
        ),
    ),
    # RTX 1.7.1; onnx/onnx-tensorrt 850 and microsoft/onnxruntime 14229 for the first.
    Cause(
        "the file quantizes a bias, which TensorRT does not take",
        "quantize it without biases: `toolkit.export(options=ExportOptions(int8=True))` does",
        ("only activation types allowed as input", "has type Int32 but must have type FP8"),
    ),
    Cause(  # RTX 1.7.1 for the first two, 8.6 and 10.6 for the last
        "an input or a cast of the file has a type that TensorRT has not, such as strings",
        "export the model with inputs of uint8, float16 or float32",
        ("Failed to convert ONNX date type", "Unsupported ONNX data type", "convertDtype("),
    ),
    # RTX 1.7.1 for the first two, 8.6-GA and 10.1-GA for the others.
    Cause(
        "the layer does not compute with the type that reaches it",
        "cast in front of it: uint8 images, for one, before they are transposed",
        (
            "but must have type", "Unsupported data type", "Found invalid input type of",
            "Found unsupported input type of",
        ),
    ),
    # RTX 1.7.1 for the first; 8.6, 10.6 (also "must contains all zeros values") for the others.
    Cause(
        "the file is quantized asymmetrically: a zero point is not 0, and TensorRT's INT8 is symmetric",
        "quantize the float32 file with `toolkit.export(options=ExportOptions(int8=True))`, or build model.int8.onnx "
        "instead of the file for ONNX Runtime's CPU kernels",
        (
            "Non-zero zero point is not supported", "TensorRT only supports symmetric quantization",
            "contains all zeros values", "supports only zero shifts values",
        ),
    ),
    # RTX 1.7.1; 8.6-GA, whose QuantDequantLinearHelper reads the bytes of every scale as float32.
    Cause(
        "a scale of the file is not above 0, or it is FP16 and this is TensorRT 8, which reads every scale as float32",
        "with TensorRT 8 build model.int8.onnx, whose scales are float32; a file whose scales are not above 0 was "
        "quantized wrongly by whoever made it: start from its float32 file",
        ("Scale coefficients must all be positive",),
    ),
    Cause(  # RTX 1.7.1; the second 8.6-GA and 10.6
        "the file has another number of zero points, or of channels, than of scales",
        "quantize the float32 file with `toolkit.export(options=ExportOptions(int8=True))`",
        (
            "scale and zero point must have the same volume",
            "number of scales is not equal to the number of output channels",
        ),
    ),
    Cause(  # RTX 1.7.1
        "the ONNX graph contradicts itself: a tensor that nothing makes, or weights of another shape than their input",
        "export it again, and check it with onnx.checker",
        ("Node input was not registered", "failed to broadcast to input"),
    ),
    Cause(  # RTX 1.7.1
        "TensorRT-RTX computes no float32 product on Turing cards",
        "leave SM75 out of the compute capabilities, or build the FP16 file",
        ("for Turing",),
    ),
    Cause(  # RTX 1.7.1 with VERSION_COMPATIBLE
        "the plan would carry a lean runtime, whose library is not installed",
        "leave `compatible='version'` out, or install the lean runtime of the same version (tensorrt-lean)",
        ("libnvinfer_lean.so",),
    ),
    Cause(  # 8.6-GA, 10.6 and RTX 1.7.1
        "the model was exported in training mode",
        "call model.eval() before the export",
        ("training_mode == 1", "Dropout operator in training mode", "Droupout operator with training mode"),
    ),
    Cause(  # RTX 1.7.1; 8.6 and 10.6 have the words too
        "the file is of an opset before 7, from 2017",
        "export it again with opset 17",
        ("Pre-opset 7 broadcasting",),
    ),
    Cause(  # RTX 1.7.1
        "an input is open in its size, and the build was told no range for it",
        "give the batch a range (`batch=(1, 8, 64)`), and export every other axis with a fixed size",
        ("no optimization profile has been defined",),
    ),
    # RTX 1.7.1 for the first and the last, 8.6-GA and 10.6 for the others: they say it of a missing file, too.
    Cause(
        "the file is cut short, is no ONNX file, or is not there",
        "copy it again in binary (130 bytes of text are Git LFS's pointer: git lfs pull), or export it again",
        (
            "Failed to parse the ONNX model", "Failed to parse ONNX model from file", "Input is not a regular file",
            "Failed to read from file: ", "not a regular file: ",
        ),
    ),
    # NVIDIA/TensorRT 2879, 149 and 1786; code 35 is cudaErrorInsufficientDriver, 36 cudaErrorCallRequiresNewerDriver
    # (seen of 8.6.1, 10.6.0 and RTX 1.7.1 over a libcuda that lacks what they call), 100 cudaErrorNoDevice.
    Cause(
        "the driver is older than the CUDA that this TensorRT was made for, or there is none",
        "update the NVIDIA driver (nvidia-smi shows the newest CUDA that it speaks), or install the TensorRT wheels "
        "for an older CUDA, such as tensorrt-cu12; on a Jetson driver and TensorRT come with JetPack, not from pip",
        (
            "failure with error: 35", "failure with error 35", "CUDA driver version is insufficient",
            "failure with error: 36", "not supported in the installed CUDA driver",
        ),
    ),
    Cause(
        "the driver sees no GPU",
        "check nvidia-smi, CUDA_VISIBLE_DEVICES, and in a container --gpus all (on a Jetson --runtime nvidia)",
        ("failure with error: 100", "failure with error 100"),
    ),
    # RTX 1.7.1 ("mode than 1 outputs for MaxPool", say): the code of every node that is refused for how it is used.
    Cause(
        "TensorRT does not take this operator, or not the way the file uses it: its own words say why",
        "export the model without it; onnx-tensorrt's docs/operators.md has what is taken, with each operator's limits",
        ("UNSUPPORTED_NODE",),
    ),
    # NVIDIA/TensorRT 2929, 4255 and 1917: no word about memory beside it.
    Cause(
        "no kernel of this TensorRT computes the layer; often the memory ran out while it tried them",
        "raise `workspace_mib=` if it is set, close what else uses the GPU, or build the FP16 file",
        ("ould not find any implementation",),
    ),
)  # fmt: skip


def cause_of(lines: Iterable[str]) -> Cause | None:
    """The first row of which a sign is in one of TensorRT's messages; None where none is known."""
    said = list(lines)
    return next((cause for cause in CAUSES if any(sign in line for sign in cause.signs for line in said)), None)
