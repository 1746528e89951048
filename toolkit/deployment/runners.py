"""Which runners a bundle has here, and why the others cannot run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.bundle.manifest import VARIANTS, Variant
from toolkit.bundle.reading import ALL, Bundle, names_of
from toolkit.conditions.host import resident_mib
from toolkit.deployment.ort_on_gpu import open_ort_cuda, open_ort_trt
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import RunnerId
from toolkit.runtime.trt.preflight import Plan, checked_plan
from toolkit.storage.documents import Document
from toolkit.storage.hints import NotNegative

BACKENDS = ("torch", "ort", "trt", "ort-cuda", "ort-trt")


class NoEngine(BackendUnavailable):
    """TensorRT runs here and the bundle has engines, but none of this precision."""


@dataclass(frozen=True)
class Opening(Document):
    """What opening one runner took; the first of a backend pays for its libraries.

    Attributes:
        host_mib: memory of this process.
        device_mib: memory of the GPU; null where nobody reads it.
    """

    load_ms: NotNegative
    host_mib: float | None
    device_mib: float | None


@dataclass(frozen=True)
class Opened:
    """Runners, what opening each took, and for each backend or runner that is not there its reason."""

    runners: dict[RunnerId, Runner]
    unavailable: dict[RunnerId, str]
    openings: dict[RunnerId, Opening] = field(default_factory=dict)

    def close(self) -> None:
        """Closes every runner."""
        for runner in self.runners.values():
            runner.close()


def require_backends(wanted: str | Sequence[str], known: tuple[str, ...] = BACKENDS) -> tuple[str, ...]:
    """`all` or names to backends, in the order given.

    Raises:
        ToolkitError: one is not known.
    """
    names = names_of(wanted)
    if names == ALL:
        return known
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ToolkitError("unknown backend", found=",".join(names), allowed="all, " + ", ".join(known))
    return names


def open_runners(
    bundle: Bundle,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    run_builder: bool = False,
    by_name: bool = True,
    device_mib: Callable[[], float | None] = lambda: None,
    slow: bool = False,
) -> Opened:
    """Opens every runner that can run here.

    Args:
        run_builder: import and call the Python that a bundle of somebody's own network names. A bundle may come from
            anybody, so this is never done unasked.
        by_name: the precisions were asked for by name; else ONNX Runtime leaves out what only a TensorRT runs well.
        device_mib: reads how much of the GPU's memory is used now.
        slow: ONNX Runtime on the CPU takes those too, without its optimizations: to be judged, not to be timed.

    Raises:
        BackendUnavailable: none can; the message holds every reason.
    """
    runners: dict[RunnerId, Runner] = {}
    unavailable: dict[RunnerId, str] = {}
    openings: dict[RunnerId, Opening] = {}
    openers = OPENERS | ({"torch": _open_builder} if run_builder and _is_user_model(bundle) else {})
    for backend in backends:
        for precision in _precisions_of(bundle, backend, precisions, by_name, slow):
            one = RunnerId(backend, precision)
            before, started = (resident_mib(), device_mib()), time.perf_counter()
            try:
                runners[one] = openers[backend](bundle, precision)
                openings[one] = Opening(
                    1000 * (time.perf_counter() - started),
                    _grown(before[0], resident_mib()),
                    _grown(before[1], device_mib()),
                )
            except ToolkitError as error:
                whole = isinstance(error, BackendUnavailable) and not isinstance(error, NoEngine)
                unavailable[RunnerId(backend) if whole else one] = error.in_one_line()
    if not runners:
        found = "\n           ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        if not found:
            found = f"{', '.join(backends)} with {', '.join(precisions)}: torch runs fp32 only, int8-cpu is for ort"
        raise BackendUnavailable(
            "no backend that was asked for can run here", found=found, fix="look at what works on this machine"
        )
    return Opened(runners, unavailable, openings)


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _precisions_of(
    bundle: Bundle, backend: str, precisions: tuple[str, ...], by_name: bool, slow: bool
) -> tuple[str, ...]:
    """PyTorch holds the model as it was trained; the other precisions are the bundle's, int8-cpu not for TensorRT.

    Unless they were named, engines that were never built are not missed: a TensorRT builds int8 or int8-fp16, not both.
    """
    everything = tuple(p for p in precisions if by_name or (slow and backend == "ort") or VARIANTS[p].optimize)
    if backend in ("ort", "ort-cuda"):
        precisions = everything
    if backend == "trt" and not by_name:
        built = {entry["precision"] for entry in bundle.engines()}
        precisions = tuple(p for p in precisions if p in built) or precisions
    return tuple(p for p in precisions if _takes(backend, VARIANTS[p]))


def _takes(backend: str, variant: Variant) -> bool:
    if backend == "torch":
        return variant.name == "fp32"
    return backend == "ort" or variant.for_tensorrt


def _is_user_model(bundle: Bundle) -> bool:
    """Whether the network is one that the toolkit did not build."""
    return bool(bundle.manifest["model"].get("arch", {}).get("family") == "python")


def _require_torch() -> None:
    from toolkit.errors import MissingPackage
    from toolkit.lazy import needs

    try:
        with needs("run the PyTorch model"):
            import torch  # noqa: F401
    except MissingPackage as error:
        raise BackendUnavailable(error.what, fix=error.fix) from error


def _open_builder(bundle: Bundle, precision: str) -> Runner:
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
    if _is_user_model(bundle):
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
    from toolkit.errors import MissingPackage
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


OPENERS: dict[str, Callable[[Bundle, str], Runner]] = {
    "torch": _open_torch,
    "ort": open_ort,
    "trt": _open_trt,
    "ort-cuda": open_ort_cuda,
    "ort-trt": open_ort_trt,
}
