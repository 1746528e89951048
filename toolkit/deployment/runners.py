"""Which runners a bundle has here, and why the others cannot run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from toolkit.bundle.manifest import VARIANTS, Variant
from toolkit.bundle.reading import ALL, Bundle, names_of
from toolkit.conditions.host import resident_mib
from toolkit.deployment.openers import OPENERS, NoEngine, is_user_model, open_builder, open_ort
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import RunnerId
from toolkit.storage.documents import Document
from toolkit.storage.hints import NotNegative

BACKENDS = ("torch", "ort", "trt", "ort-cuda", "ort-trt")


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
    ort_threads: int = 0,
) -> Opened:
    """Opens every runner that can run here.

    Args:
        run_builder: import and call the Python that the bundle of a user's network names. A bundle may come from
            anybody, so this is never done unasked.
        by_name: the precisions were asked for by name; else ONNX Runtime leaves out what only a TensorRT runs well.
        device_mib: reads how much of the GPU's memory is used now.
        slow: ONNX Runtime on the CPU takes those too, without its optimizations: to be judged, not to be timed.
        ort_threads: of one operator in ONNX Runtime on the CPU; 0: every core.

    Raises:
        BackendUnavailable: none can; the message holds every reason.
    """
    runners: dict[RunnerId, Runner] = {}
    unavailable: dict[RunnerId, str] = {}
    openings: dict[RunnerId, Opening] = {}
    openers = OPENERS | ({"ort": partial(open_ort, threads=ort_threads)} if ort_threads else {})
    openers |= {"torch": open_builder} if run_builder and is_user_model(bundle) else {}
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
        fix = "look at what works on this machine"
        if not found:
            found = f"{', '.join(backends)} with {', '.join(precisions)}: torch runs fp32 only, int8-cpu is for ort"
            fix = "leave one of the two out"
        raise BackendUnavailable("no backend that was asked for can run here", found=found, fix=fix)
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
