"""Does anything grow? `net.classify` from eight threads, with loads and closes between, for an hour.

    python benchmarks/soak.py [BUNDLE] [--seconds 3600] [--threads 8] [--pause 0]

The threads share a net and classify in batches of 1 to 64; twice a second the bundle is loaded anew and takes its
place, and whoever leaves the old one last closes it. Answers are compared with the first ones, bit for bit. Prints a
table on stderr (a line for each twentieth of the time) and one JSON document on stdout. Exits with 1 where an answer
differed, a call failed, or resident memory, threads or descriptors are higher in the last quarter than in the second
(memory by more than 1 % and 4 MiB; the others by more than 1: a net may be closing).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import toolkit

BATCHES = (1, 8, 64, 3)
MIB, PART = 4.0, 0.01  # by which memory may differ between two quarters: the allocator's own ups and downs


@dataclass(frozen=True)
class Sample:
    """The process at one moment."""

    seconds: float
    calls: int
    loads: int
    rss_mib: float
    threads: int
    descriptors: int


@dataclass
class Shared:
    """The net that everybody asks, and what was counted."""

    bundle: Path
    net: Any
    calls: int = 0
    loads: int = 0
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Lease:
    """A net that is not closed while somebody is in it."""

    def __init__(self, net: Any) -> None:
        self.net, self.users, self.retired = net, 0, False


def worker(shared: Shared, images: Any, right: dict[int, Any], ends: float, number: int, pause: float) -> None:
    """Calls until the time is over, with a pause of so many seconds after each."""
    turn = number
    while time.monotonic() < ends:
        size, turn = BATCHES[turn % len(BATCHES)], turn + 1
        with shared.lock:
            lease = shared.net
            lease.users += 1
        try:
            found = lease.net.classify(images[:size]).probabilities
            if not np.array_equal(found, right[size]):
                shared.faults.append(f"another answer to {size} images")
        except Exception as error:  # whatever it is, it is what this looks for
            shared.faults.append(f"{type(error).__name__}: {error}")
        with shared.lock:
            lease.users -= 1
            shared.calls += 1
            last = lease.retired and not lease.users
        if last:
            lease.net.close()
        time.sleep(pause)


def swap(shared: Shared) -> None:
    """A fresh load takes the place of the net; whoever leaves the old one last closes it."""
    fresh = Lease(toolkit.load(shared.bundle, backend="ort"))
    with shared.lock:
        old, shared.net = shared.net, fresh
        old.retired = True
        unused = not old.users
        shared.loads += 1
    if unused:
        old.net.close()


def sample(shared: Shared, started: float) -> Sample:
    """What the kernel says of this process, once the allocator has given back what is free in its arenas."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads = len(os.listdir("/proc/self/task"))
    descriptors = len(os.listdir("/proc/self/fd"))
    rss = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return Sample(time.monotonic() - started, shared.calls, shared.loads, round(rss, 2), threads, descriptors)


def grown(samples: list[Sample]) -> list[str]:
    """What is higher in the last quarter than in the second, by medians."""
    quarter = len(samples) // 4
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    found = []
    for name, allowed in (("rss_mib", MIB), ("threads", 1), ("descriptors", 1)):
        was, now = (statistics.median(getattr(one, name) for one in part) for part in (before, after))
        if now > was + max(allowed, PART * was if name == "rss_mib" else 0):
            found.append(f"{name}: {was:g} in the second quarter, {now:g} in the last")
    return found


def soaked(bundle: Path, seconds: float, count: int, pause: float) -> dict[str, Any]:
    """Runs everything and returns the document."""
    net = toolkit.load(bundle, backend="ort")
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), *net.preprocessing.shape), dtype=np.uint8)
    right = {size: net.classify(images[:size]).probabilities for size in BATCHES}
    shared, started = Shared(bundle, Lease(net)), time.monotonic()
    ends, samples, lines = started + seconds, [], 0
    workers = [threading.Thread(target=worker, args=(shared, images, right, ends, n, pause)) for n in range(count)]
    for thread in workers:
        thread.start()
    print(
        f"{'seconds':>8} {'calls':>10} {'loads':>7} {'RSS MiB':>8} {'threads':>7} {'descriptors':>11}", file=sys.stderr
    )
    while time.monotonic() < ends:
        time.sleep(min(0.5, seconds / 80))
        swap(shared)
        samples.append(sample(shared, started))
        if samples[-1].seconds >= (lines + 1) * seconds / 20:
            lines, s = lines + 1, samples[-1]
            print(f"{s.seconds:8.0f} {s.calls:10,} {s.loads:7,} {s.rss_mib:8.1f} {s.threads:7} {s.descriptors:11}",
                  file=sys.stderr, flush=True)  # fmt: skip
    for thread in workers:
        thread.join()
    shared.net.net.close()
    faults = sorted(set(shared.faults)) + grown(samples)
    kept = samples[:: max(1, len(samples) // 60)]
    return {"schema": "benchmarks/soak/1", "ok": not faults, "bundle": str(bundle), "seconds": round(seconds, 1),
            "threads": count, "pause": pause, "calls": shared.calls, "loads": shared.loads, "faults": faults,
            "samples": [asdict(one) for one in kept]}  # fmt: skip


def main() -> int:
    """Reads the command line, soaks, prints."""
    parser = argparse.ArgumentParser(description="net.classify from several threads, with loads and closes between.")
    parser.add_argument("bundle", type=Path, nargs="?", default=Path(__file__).parents[1] / "tests/bundle/format-1")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0, help="seconds that a thread waits after a call")
    options = parser.parse_args()
    document = soaked(options.bundle, options.seconds, options.threads, options.pause)
    print("; ".join(document["faults"]) or "nothing grew, every answer was the same", file=sys.stderr)
    print(json.dumps(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
