"""How a runner of each backend is opened over a bundle's files: PyTorch, ONNX Runtime with its providers, TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.errors import BackendUnavailable, MissingPackage, ToolkitError
from toolkit.lazy import needs
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.runner import Runner
from toolkit.runtime.trt.preflight import Plan, checked_plan
from toolkit.storage.cache import private_folder
from toolkit.target import DEFAULT_TARGET, target_from_name


class NoEngine(BackendUnavailable):
    """TensorRT runs here and the bundle has engines, but none of this precision."""


def is_user_model(bundle: Bundle) -> bool:
    """Whether the network is one that the toolkit did not build."""
    return bool(bundle.manifest["model"].get("arch", {}).get("family") == "python")


def _require_torch() -> None:
    try:
        with needs("run the PyTorch model"):
            import torch  # noqa: F401
    except MissingPackage as error:
        raise BackendUnavailable(error.what, fix=error.fix) from error


def open_builder(bundle: Bundle, precision: str) -> Runner:
    """The network as its own Python builds it, with the checkpoint that the bundle was exported from."""
    _require_torch()
    from toolkit.models.user_network import classifier_of, network_from_source, source_from_dict
    from toolkit.runtime.pytorch import TorchRunner

    model = bundle.manifest["model"]
    stripped = bundle.manifest.get("output", {}).get("stripped")
    if stripped:
        raise BackendUnavailable(
            f"the PyTorch network answers with probabilities, the bundle with the logits before its {stripped}",
            found="answers that no distance can be told between; at export both were equal up to there",
        )
    try:
        network = network_from_source(source_from_dict(model["arch"]), model["weights_sha256"])
    except BackendUnavailable:
        raise
    except ToolkitError as error:
        raise BackendUnavailable(error.what, found=error.found, fix=error.fix) from error
    return TorchRunner(classifier_of(network.net, bundle.preprocessing), label=bundle.model)


def _open_torch(bundle: Bundle, precision: str) -> Runner:
    if bundle.manifest["model"].get("arch", {}).get("family") == "onnx":
        raise BackendUnavailable(
            f"there is no PyTorch model: this bundle was exported from {bundle.manifest['model']['arch'].get('file')}",
            fix="`backend='ort'`",
        )
    if is_user_model(bundle):
        arch = bundle.manifest["model"]["arch"]
        raise BackendUnavailable(
            f"the PyTorch model of this bundle is not in models/: it was exported from {arch.get('builder')}",
            allowed="models that the toolkit trained",
            fix="`run_builder=True` imports and calls that; do so only for a bundle that you exported yourself",
        )
    _require_torch()
    from toolkit.models.checkpoint import folder_of_model, load_model
    from toolkit.runtime.pytorch import TorchRunner

    loaded = load_model(folder_of_model(bundle.manifest["model"].get("folder_hint") or bundle.model))
    wanted = bundle.manifest["model"]["weights_sha256"]
    if loaded.card.weights_sha256 != wanted:
        raise BackendUnavailable(
            f"{loaded.folder} holds other weights than this bundle was exported from",
            found=f"sha256 {loaded.card.weights_sha256[:16]}..., the bundle wants {wanted[:16]}...",
            fix=f"`toolkit.export({bundle.model!r})`",
        )
    return TorchRunner(loaded.classifier, label=bundle.model)


def open_ort(bundle: Bundle, precision: str, threads: int = 0) -> Runner:
    """ONNX Runtime on the CPU with the bundle's file of a precision; 0 threads take every core.

    Raises:
        BackendUnavailable: it is not installed.
    """
    from toolkit.runtime.ort.runner import OrtRunner

    content = bundle.onnx(precision)
    try:
        runner = OrtRunner(content, threads=threads, optimize=VARIANTS[precision].optimize)
    except MissingPackage as error:
        raise BackendUnavailable(error.what, fix=error.fix) from error
    wanted = ("tensor(uint8)", list(bundle.preprocessing.shape), [len(bundle.labels)])
    if not runner.has_form(*wanted):
        found = runner.form
        runner.close()
        raise ToolkitError(
            f"{content.path} is not the net that the manifest describes",
            found=" ".join(map(str, found)),
            allowed=" ".join(map(str, wanted)),
            fix="copy the bundle again, or export again",
        )
    return runner


def _open_trt(bundle: Bundle, precision: str) -> Runner:
    """The engine of a precision that was built last; never that of another precision."""
    from toolkit.runtime.trt.module import require_can_run
    from toolkit.runtime.trt.runner import TrtRunner

    require_can_run()
    engines = [entry for entry in bundle.engines() if entry["precision"] == precision]
    engines = sorted(engines, key=lambda entry: entry.get("dla_core") is None)  # the GPU's last, which is taken
    rebuild = f"`toolkit.build({str(bundle.folder)!r}, precisions={VARIANTS[precision].precision!r})`"
    if not engines:
        there = ", ".join(sorted({str(entry["precision"]) for entry in bundle.engines()}))
        kind = NoEngine if there else BackendUnavailable
        raise kind(f"{bundle.folder} has no {precision} engine", found=there or "no engines", fix=rebuild)
    return TrtRunner(plan_of_bundle(bundle, engines[-1], rebuild), rebuild=rebuild)


def plan_of_bundle(bundle: Bundle, entry: dict[str, Any], rebuild: str) -> Plan:
    """An engine of the manifest with its sidecar, both as their hashes there bind them.

    Raises:
        BundleError: one of the two was written into. EngineError: see `toolkit.runtime.trt.preflight.checked_plan`.
    """
    name = str(entry["file"])
    return checked_plan(bundle.files.content(name), bundle.files.content(f"{name}.json"), rebuild)


def open_ort_cuda(bundle: Bundle, precision: str) -> Runner:
    """ONNX Runtime's CUDA provider with the bundle's file of a precision.

    Raises:
        BackendUnavailable: it is not installed, or there is no GPU. ToolkitError: it does not take the whole file.
    """
    from toolkit.runtime.ort.runner import CUDA, OrtRunner

    try:
        optimize = VARIANTS[precision].optimize
        return OrtRunner(bundle.onnx(precision), provider=CUDA, optimize=optimize)
    except MissingPackage as error:
        raise BackendUnavailable(error.what, fix=error.fix) from error


def open_ort_trt(bundle: Bundle, precision: str) -> Runner:
    """ONNX Runtime's TensorRT provider; it builds its engines itself, for the batches of the target `default`.

    TensorRT gets the graph as it stands: ONNX Runtime's own rewrites around Q/DQ are made for its own kernels.

    Raises:
        BackendUnavailable: it is not installed, or there is no GPU. ToolkitError: it does not take the whole file.
    """
    from toolkit.runtime.ort.runner import TENSORRT, OrtRunner, require_provider
    from toolkit.runtime.ort.tensorrt_options import tensorrt_options

    try:
        with needs("run ONNX files"):
            import onnxruntime
        require_provider(onnxruntime, TENSORRT)
        model, batch = bundle.onnx(precision), target_from_name(DEFAULT_TARGET).batch
        types, cache = VARIANTS[precision].builder_flags, private_folder("ort-trt")
        options = tensorrt_options(model, types, batch, cache, probe_driver().devices[0].name)
        return OrtRunner(model, provider=TENSORRT, provider_options=options, largest_batch=batch[2], optimize=False)
    except MissingPackage as error:
        raise BackendUnavailable(error.what, fix=error.fix) from error


OPENERS: dict[str, Callable[[Bundle, str], Runner]] = {
    "torch": _open_torch,
    "ort": open_ort,
    "trt": _open_trt,
    "ort-cuda": open_ort_cuda,
    "ort-trt": open_ort_trt,
}
