"""ONNX Runtime as a runner, with the providers that really run and no silent fallback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.lazy import needs
from toolkit.runtime.ort_biases import keep_float_biases
from toolkit.runtime.runner import ClosesItself


class OrtRunner(ClosesItself):
    """A session over one ONNX file or its bytes.

    Args:
        model: a path, or the bytes of an ONNX file.
        provider: "CPUExecutionProvider" or "CUDAExecutionProvider"; it runs there or the runner is not made.
        threads: of one operator; 0 lets ONNX Runtime take every core.
        optimize: ONNX Runtime's graph optimisations, except the one that rounds float biases to int32, which never
            runs (see `toolkit.runtime.ort_biases`). Off, the graph is run as it stands.

    Raises:
        BackendUnavailable: this onnxruntime lacks the provider.
        ToolkitError: the file is not a model that ONNX Runtime reads.
    """

    name = "ort"

    def __init__(
        self,
        model: Path | bytes,
        *,
        provider: str = "CPUExecutionProvider",
        threads: int = 0,
        label: str = "",
        optimize: bool = True,
    ) -> None:
        with needs("run ONNX files"):
            import onnxruntime
        if provider not in onnxruntime.get_available_providers():
            raise BackendUnavailable(
                f"this ONNX Runtime has no {provider}",
                found=", ".join(onnxruntime.get_available_providers()),
                fix="pip install 'trt-edge-toolkit[gpu]'",
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings about foreign metadata are not for users
        options.intra_op_num_threads = threads
        keep_float_biases(options)
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = str(model) if isinstance(model, Path) else model
        label = label or (model.name if isinstance(model, Path) else "a graph in memory")
        try:
            self.session: Any = onnxruntime.InferenceSession(source, options, providers=[provider])
        except Exception as error:  # onnxruntime raises a dozen types of its own, all RuntimeError-like
            raise ToolkitError(
                f"ONNX Runtime cannot read {label}",
                found=" ".join(str(error).split())[:300],
                fix="export again",
            ) from error
        running = self.session.get_providers()[0]
        if running != provider:
            raise BackendUnavailable(f"ONNX Runtime fell back to {running}", allowed=provider)
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.description = (
            f"ONNX Runtime {onnxruntime.__version__} {provider.removesuffix('ExecutionProvider')} {label}"
            + ("" if optimize else ", optimisations off")
        )

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Images uint8 (N, H, W, C) to logits float32 (N, classes)."""
        logits: Float32 = self.session.run(self.outputs[:1], {self.input: images_nhwc})[0]
        return logits

    def tensors(self, images_nhwc: UInt8) -> dict[str, Float32]:
        """Every output of the graph by name, for graphs that expose activations."""
        values = self.session.run(self.outputs, {self.input: images_nhwc})
        return dict(zip(self.outputs, (np.asarray(value) for value in values), strict=True))

    def close(self) -> None:
        """Drops the session; a closed runner cannot answer again."""
        self.session = None
