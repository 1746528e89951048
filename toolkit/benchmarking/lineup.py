"""Who is measured: a bundle's runners, each with or without its CUDA graph, and those of a bundle to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from toolkit.bundle.reading import Bundle
from toolkit.deployment.runners import Opened, Opening, open_runners
from toolkit.errors import ToolkitError
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import AGAINST, RunnerId
from toolkit.timing.latency import times_phases

GRAPHS = ("on", "off", "both")


class Lineup:
    """Opens what is to be measured and closes it again.

    Args:
        device_mib: reads how much of the GPU's memory is used now.
        ort_threads: of one operator in ONNX Runtime on the CPU; 0: every core.

    Attributes:
        runners: in the order of turns; a rival follows the one that it is compared with.
        rivals: by the counterpart of each.
        rival_folder: the other bundle.
    """

    def __init__(self, device_mib: Callable[[], float | None] = lambda: None, ort_threads: int = 0) -> None:
        self._device_mib, self._ort_threads = device_mib, ort_threads
        self.runners: dict[RunnerId, Runner] = {}
        self.unavailable: dict[RunnerId, str] = {}
        self.openings: dict[RunnerId, Opening] = {}
        self.rivals: dict[RunnerId, RunnerId] = {}
        self.rival_folder = ""
        self._opened: list[Opened] = []
        self._variants: list[Runner] = []

    def open(
        self,
        bundle: Bundle,
        backends: tuple[str, ...],
        precisions: tuple[str, ...],
        run_builder: bool,
        by_name: bool,
        graph: str = "on",
    ) -> None:
        """The bundle's own.

        Raises:
            BackendUnavailable: none can run here.
        """
        opened = open_runners(
            bundle, backends, precisions, run_builder, by_name, self._device_mib, ort_threads=self._ort_threads
        )
        self._opened.append(opened)
        self.runners, self.unavailable = self._with_graphs(opened.runners, graph), dict(opened.unavailable)
        self.openings = dict(opened.openings)

    def open_rivals(
        self, other: Bundle, bundle: Bundle, backends: tuple[str, ...], by_name: bool, graph: str = "on"
    ) -> None:
        """Those of another bundle that have a counterpart here, each beside it.

        Raises:
            ToolkitError: its images are of another size, or it has no runner that this bundle has.
        """
        if other.preprocessing.shape != bundle.preprocessing.shape:
            raise ToolkitError(
                f"{other.folder} takes images of another size",
                found=" x ".join(map(str, other.preprocessing.shape)),
                allowed=" x ".join(map(str, bundle.preprocessing.shape)),
            )
        precisions = tuple(p for p in other.precisions if any(name.variant == p for name in self.runners))
        opened = open_runners(
            other, backends, precisions, by_name=by_name, device_mib=self._device_mib, ort_threads=self._ort_threads
        )
        self._opened.append(opened)
        found = self._with_graphs(opened.runners, graph)
        self.rivals = {name: replace(name, side=AGAINST) for name in self.runners if name in found}
        if not self.rivals:
            raise ToolkitError(
                f"{other.folder} has no runner that this bundle has",
                found=", ".join(map(str, found)),
                allowed=", ".join(map(str, self.runners)),
            )
        self.rival_folder = str(other.folder)
        both: dict[RunnerId, Runner] = {}
        for name, runner in self.runners.items():
            both |= {name: runner} | ({self.rivals[name]: found[name]} if name in found else {})
        self.openings |= {self.rivals[name]: taken for name, taken in opened.openings.items() if name in self.rivals}
        self.runners = both

    def allow_streams(self, count: int) -> None:
        """Lets every runner on a GPU run so many calls at once."""
        for runner in self.runners.values():
            if timed := times_phases(runner):
                timed.allow_streams(count)

    @property
    def has_graphs(self) -> bool:
        """Whether a runner here also runs without its CUDA graph."""
        return bool(self._variants)

    def _with_graphs(self, runners: dict[RunnerId, Runner], graph: str) -> dict[RunnerId, Runner]:
        """With "off" and "both", the variants that enqueue each call anew; others have no graph to leave out."""
        found: dict[RunnerId, Runner] = {}
        for name, runner in runners.items():
            phased = times_phases(runner) if graph != "on" else None
            if phased is None or graph == "both":
                found[name] = runner
            if phased is not None:
                found[replace(name, graph=False)] = variant = phased.without_graph()
                self._variants.append(variant)
        return found

    def close(self) -> None:
        """Closes every runner."""
        for runner in self._variants:
            runner.close()
        for opened in self._opened:
            opened.close()
