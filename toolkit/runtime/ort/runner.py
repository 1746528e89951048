"""ONNX Runtime as a runner, with the providers that really run and no silent fallback."""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.lazy import needs, requirement
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.ort.profile import CPU, Node, nodes_from_profile, obstacle_to_trusting, placement_in_words, short
from toolkit.runtime.ort.quirks import keep_float_biases
from toolkit.runtime.ort.session_options import session_options
from toolkit.runtime.runner import ClosesItself
from toolkit.storage.files import Content

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = {CUDA: "ort-cuda", TENSORRT: "ort-trt"}
LIBRARIES = {
    CUDA: "install the CUDA and cuDNN that it wants: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    TENSORRT: "install the TensorRT, CUDA and cuDNN that it wants: pip install tensorrt 'onnxruntime-gpu[cuda,cudnn]'",
}


class OrtRunner(ClosesItself):
    """A session over one ONNX file or its bytes.

    A provider other than the CPU's answers one call under ONNX Runtime's profiler when the runner is made, and is
    refused if the CPU computed a part of it; see `toolkit.runtime.ort.profile` for the rule.

    Args:
        model: a path, a file that was read, or the bytes of an ONNX file.
        provider: "CPUExecutionProvider", "CUDAExecutionProvider" or "TensorrtExecutionProvider"; it runs there or the
            runner is not made. What TensorRT does not take may run on CUDA; the description names it.
        provider_options: of that provider.
        largest_batch: images in one call of the session; more are split. None takes any number.
        threads: of one operator; 0 takes every core that this process may use.
        label: what to call the model; its file's name by default.
        profile: where ONNX Runtime's profile of every call begins; `close` ends it. See `layer_times`.
        optimize: ONNX Runtime's graph optimizations, except the one that rounds float biases to int32, which never
            runs (see `toolkit.runtime.ort.quirks`). Off, the graph is run as it stands.

    Raises:
        BackendUnavailable: this onnxruntime lacks the provider, there is no driver, or the provider did not start.
        ToolkitError: the file is not a model that ONNX Runtime reads, or the CPU would compute a part of it.
    """

    name = "ort"

    def __init__(
        self,
        model: Path | Content | bytes,
        *,
        provider: str = CPU,
        provider_options: dict[str, str] | None = None,
        largest_batch: int | None = None,
        threads: int = 0,
        label: str = "",
        optimize: bool = True,
        profile: Path | None = None,
    ) -> None:
        with needs("run ONNX files"):
            import onnxruntime
        require_provider(onnxruntime, provider)
        self.name, self.largest_batch = NAMES.get(provider, "ort"), largest_batch
        options = session_options(threads)
        if provider != CPU:
            options.log_severity_level = 3  # providers on a GPU say more than they raise
        keep_float_biases(options)
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        label = label or (model.name if isinstance(model, Path | Content) else "a graph in memory")
        providers: list[Any] = [(provider, provider_options or {})] + ([CUDA] if provider == TENSORRT else [])
        with tempfile.TemporaryDirectory(prefix="toolkit-ort-") as folder:
            if provider != CPU or profile is not None:
                options.enable_profiling = True
                options.profile_file_prefix = str(profile or Path(folder) / "profile")
            self.session: Any = _session(onnxruntime, model, options, providers, label)
            self.input = self.session.get_inputs()[0].name
            self.outputs = [output.name for output in self.session.get_outputs()]
            running = self.session.get_providers()[0]
            if running != provider:
                raise BackendUnavailable(
                    f"ONNX Runtime fell back to {running}", allowed=provider, fix=LIBRARIES.get(provider)
                )
            where = "" if provider == CPU else f", {self._placed(provider, label)}"
        self.description = f"ONNX Runtime {onnxruntime.__version__} {short(provider)} {label}{where}" + (
            "" if optimize else ", optimizations off"
        )

    @property
    def form(self) -> tuple[str, list[Any], list[Any]]:
        """ONNX Runtime's word for the first input's type, and shapes of first input and output without the batch."""
        into, out = self.session.get_inputs()[0], self.session.get_outputs()[0]
        return into.type, list(into.shape[1:]), list(out.shape[1:])

    def has_form(self, kind: str, into: list[int], out: list[int]) -> bool:
        """Whether `form` is this one, as far as the file says: a size that it leaves open fits any."""
        here = self.form
        pairs = [(here[1], into), (here[2], out)]
        fits = all(
            len(a) == len(b) and all(x == y or not isinstance(x, int) for x, y in zip(a, b, strict=True))
            for a, b in pairs
        )
        return here[0] == kind and fits

    def _placed(self, provider: str, label: str) -> str:
        """Answers one call of zeros, and says where each node ran.

        Raises:
            ToolkitError: not on the provider.
        """
        entry = self.session.get_inputs()[0]
        shape = [n if isinstance(n, int) else 1 for n in entry.shape]
        nodes: tuple[Node, ...] = ()
        try:
            self.session.run(self.outputs[:1], {self.input: np.zeros(shape, _dtype(entry.type))})
            nodes = nodes_from_profile(Path(self.session.end_profiling()))
        except Exception as error:  # of onnxruntime, as above
            raise _did_not_run(provider, label, error) from error
        obstacle = obstacle_to_trusting(nodes, provider)
        if obstacle:
            raise ToolkitError(
                f"{short(provider)} does not run all of {label}",
                found=obstacle,
                allowed="no node on the CPU but those that handle shapes",
                fix="`backend='ort'` runs it on the CPU",
            )
        return placement_in_words(nodes, provider)

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Images uint8 (N, H, W, C) to logits float32 (N, classes)."""
        most = self.largest_batch
        if most is not None and len(images_nhwc) > most:
            starts = range(0, len(images_nhwc), most)
            return np.concatenate([self.logits(images_nhwc[start : start + most]) for start in starts])
        logits: Float32 = self.session.run(self.outputs[:1], {self.input: images_nhwc})[0]
        return logits

    def tensors(self, images_nhwc: UInt8) -> dict[str, Float32]:
        """Every output of the graph by name, for graphs that expose activations."""
        values = self.session.run(self.outputs, {self.input: images_nhwc})
        return dict(zip(self.outputs, (np.asarray(value) for value in values), strict=True))

    def close(self) -> None:
        """Drops the session; a closed runner cannot answer again."""
        self.session = None


def require_provider(onnxruntime: Any, provider: str) -> None:
    """Refuses a provider that this onnxruntime lacks, and a GPU's without a driver: it would fall back or abort.

    Raises:
        BackendUnavailable: with the pip command, or the driver's reason.
    """
    available: Sequence[str] = onnxruntime.get_available_providers()
    if provider not in available:
        raise BackendUnavailable(
            f"this ONNX Runtime has no {provider}",
            found=", ".join(available),
            fix=f"pip uninstall onnxruntime; pip install {requirement('gpu')}",  # one of the two can be installed
        )
    if provider not in LIBRARIES:
        return
    driver = probe_driver()
    if not driver.available:
        raise BackendUnavailable(f"ONNX Runtime's {provider} cannot run here", found=driver.reason)
    _load_libraries(onnxruntime)


def _load_libraries(onnxruntime: Any) -> None:
    """Loads CUDA, cuDNN and TensorRT from pip's packages, which no library path names; silent where there are none."""
    with contextlib.suppress(Exception), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        importlib.import_module("tensorrt_libs")
    with contextlib.suppress(Exception), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        onnxruntime.preload_dlls()  # since 1.21; its lines of text go to stdout, which is for JSON


def _session(onnxruntime: Any, model: Path | Content | bytes, options: Any, providers: list[Any], label: str) -> Any:
    """A session that does not try the CPU where its provider fails (`enable_fallback`)."""
    source: Any = model.data if isinstance(model, Content) else model
    if isinstance(model, Path):  # onnxruntime takes no path that is not UTF-8
        source = str(model) if _is_utf8(str(model)) else model.read_bytes()
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime raises a dozen types of its own, all RuntimeError-like
        provider = providers[0][0]
        if provider != CPU and not type(error).__name__.startswith(("Invalid", "NoSuchFile")):
            raise _did_not_run(provider, label, error) from error
        raise ToolkitError(
            f"ONNX Runtime cannot read {label}",
            found=" ".join(str(error).split())[:300],
            fix="export again",
        ) from error


def _is_utf8(path: str) -> bool:
    """Whether a path's name is text; a name of other bytes has lone surrogates in Python."""
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def _did_not_run(provider: str, label: str, error: Exception) -> ToolkitError:
    """A provider that is there and failed: all of it where a library is missing, else with this file."""
    words = " ".join(str(error).split())
    missing = "install TensorRT libraries" in words or "cannot open shared object" in words
    kind = BackendUnavailable if missing else ToolkitError
    return kind(f"ONNX Runtime's {provider} does not run {label}", found=words[-400:], fix=LIBRARIES.get(provider))


def _dtype(name: str) -> Any:
    """The numpy type of `tensor(uint8)`."""
    return {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16}.get(name, np.float32)
