"""What `toolkit bench` found, as values: a row a runner and batch size, the machine, warnings, and a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from toolkit.benchmarking.warnings import Warned
from toolkit.conditions.device import Device
from toolkit.conditions.host import Host
from toolkit.conditions.machine import Conditions
from toolkit.deployment.runners import Opening
from toolkit.storage.documents import Document
from toolkit.storage.hints import Count, Items, Maybe, NotNegative, Positive, Probability, Sha256
from toolkit.timing.latency import AtLeastOne, Latency

Verdict = Literal["slower", "the machine is slower", "undecided", "within the limit"]
Graph = Literal["on", "off", "both"]
Wait = Literal["auto", "spin", "block"]


@dataclass(frozen=True)
class Settings(Document):
    """What was asked for.

    Attributes:
        seconds: most measuring time of a runner at a batch size.
        threads: callers at once.
        streams: calls that a runner on a GPU may run at once.
        rate_hz: calls a second on a schedule; null: back to back.
        graph: CUDA graphs.
        batches: images in a call.
        wait: how threads waited for the GPU.
        backends, precisions: "all", or those that were named, with commas.
        ort_threads: of one operator in ONNX Runtime on the CPU; 0: every core.
        iterations: so many calls of a runner at a batch size, instead of `seconds`.
        warmup_s: seconds of it before each measurement; absent: until a call took no less than before.
    """

    seconds: NotNegative
    threads: AtLeastOne
    streams: AtLeastOne
    rate_hz: Positive | None
    graph: Graph
    batches: tuple[AtLeastOne, ...]
    wait: Maybe[Wait] = None
    backends: Maybe[str] = None
    precisions: Maybe[str] = None
    ort_threads: Maybe[Count] = None
    iterations: Maybe[AtLeastOne] = None
    warmup_s: Maybe[NotNegative] = None


@dataclass(frozen=True)
class Change(Document):
    """One runner at one batch size, now over then.

    Attributes:
        ratio: of the medians; 1.02 is 2 % slower.
        low: the true ratio of the two measurements is below it once in 1,000; null where there are too few rounds.
        high: likewise above it.
    """

    runner: str
    batch: int
    ratio: NotNegative
    low: NotNegative | None
    high: NotNegative | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison(Document):
    """All that both runs measured: ratios of medians with the interval that a rank test gives.

    Attributes:
        ok: nothing is slower beyond the limit, and the machine did not hide it.
        reference: the file or folder compared with.
        paired: measured in the same rounds, so that drift of the machine is not in the ratios.
        max_regression: 0.03 lets a median be 3 % longer.
        machine: ratio of a fixed piece of work between the two runs; null when paired.
    """

    ok: bool
    reference: str
    paired: bool
    max_regression: NotNegative
    machine: NotNegative | None
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class ProfiledLayer(Document):
    """A layer as the engine computes it, perhaps several of the file's fused.

    Attributes:
        name: the engine's.
        kind: ONNX Runtime's operator; empty for TensorRT, which says a name alone.
        ms: of one call, the mean over the profile's calls.
        part: of the sum of all layers, 0 to 1.
    """

    name: str
    kind: str
    ms: NotNegative
    part: Probability


@dataclass(frozen=True)
class LayerProfile(Document):
    """One runner at one batch size, layer by layer, from calls that were made for that and are in no other figure.

    Attributes:
        calls: that the means are of.
        sum_ms: of all layers; with TensorRT more than a call takes otherwise, because each layer is waited for.
        layers: in the order in which they ran first.
    """

    runner: str
    batch: AtLeastOne
    calls: AtLeastOne
    sum_ms: NotNegative
    layers: tuple[ProfiledLayer, ...]


@dataclass(frozen=True)
class Benchmark(Document):
    """What toolkit bench prints, --save keeps and toolkit.bench(...) returns; docs/bench.md explains each figure.

    Attributes:
        ok: what was asked for ran, its rate was held, and nothing is slower than allowed; earlier versions printed it
            and did not save it.
        bundle: its folder.
        manifest_sha256: of manifest.json's bytes.
        tool: version.
        runners: each runner's engine, version, device and file, by its name.
        openings: load time and memory by name.
        latency: a row a runner and batch size.
        machine: a fixed piece of work in the same rounds, that a later run is compared by; empty unless asked for.
        unavailable: why a backend or runner is not among them.
        host: conditions.host again.
        profiles: layer by layer, where it was asked for and the engine times its layers.
    """

    SCHEMA = "toolkit/bench/1"
    bundle: str
    model: str
    manifest_sha256: Sha256
    weights_sha256: str
    tool: str
    device: Device
    settings: Settings
    runners: dict[str, str]
    openings: dict[str, Opening]
    latency: Annotated[tuple[Latency, ...], Items(least=1)]
    machine: tuple[Latency, ...]
    conditions: Conditions
    warnings: tuple[Warned, ...]
    comparison: Comparison | None
    unavailable: dict[str, str]
    host: Host
    ok: Maybe[bool] = None
    profiles: Maybe[tuple[LayerProfile, ...]] = None
