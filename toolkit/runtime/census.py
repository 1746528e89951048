"""What an engine is made of: which convolutions really read INT8, and what only converts or moves data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

CONVOLUTIONS = ("correlation", "convolution")  # what the build log calls a convolution; Myelin says correlation


@dataclass(frozen=True)
class Census:
    """What an engine is made of.

    Attributes:
        kinds: (layer kind, types read, types written, how many), the most frequent first; types as TensorRT names
            them, several joined by "+".
    """

    kinds: tuple[tuple[str, str, str, int], ...]

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return sum(count for *_, count in self.kinds)

    def convolutions(self, reads: str | None = None) -> int:
        """How many convolutions there are, or how many whose image input is of type `reads` ("Int8", "Half")."""
        return sum(
            count for kind, read, _, count in self.kinds if kind in CONVOLUTIONS and reads in (None, read.split("+")[0])
        )

    @property
    def conversions(self) -> int:
        """Layers that only change a type or a layout: one tensor in, the same in another type out, or a reformat."""
        return sum(
            count
            for kind, reads, writes, count in self.kinds
            if "reformat" in kind.lower()
            or (kind not in CONVOLUTIONS and reads and writes and "+" not in reads + writes and reads != writes)
        )

    def as_dict(self) -> dict[str, Any]:
        """For sidecars and reports."""
        reading = {name: self.convolutions(name) for name in ("Int8", "Half", "Float")}
        kinds = [dict(zip(("kind", "reads", "writes", "count"), entry, strict=True)) for entry in self.kinds]
        return {
            "layers": self.layers,
            "convolutions": self.convolutions(),
            "convolutions_reading": reading,
            "conversions": self.conversions,
            "kinds": kinds,
        }


def census_from_log(lines: Iterable[str]) -> Census | None:
    """The layers that a build with ProfilingVerbosity.DETAILED listed, or None where it listed none.

    TensorRT-RTX lists them in this form (seen on 1.7.1); full TensorRT has them in its engine inspector.
    """
    listing = next((m for m in lines if m.startswith("Layers:")), None)
    if listing is None:
        return None
    layer = re.compile(
        r"Name: .*?, LayerType: (\w+), Inputs: \[(.*?)\], Constants: \[.*?\], Outputs: \[(.*?)\], Tactic"
    )
    kinds: Counter[tuple[str, str, str]] = Counter()
    for line in listing.split("I/O Tensors:")[0].splitlines():
        if match := layer.match(line):
            reads, writes = ("+".join(re.findall(r"Datatype: (\w+)", match[i])) for i in (2, 3))
            kinds[match[1], reads, writes] += 1
    return Census(tuple((*kind, count) for kind, count in kinds.most_common())) if kinds else None


def census_from_dict(document: dict[str, Any] | None) -> Census | None:
    """The census of a sidecar; None where the build listed no layers."""
    if document is None:
        return None
    return Census(tuple((k["kind"], k["reads"], k["writes"], int(k["count"])) for k in document["kinds"]))


def warnings_of_census(census: Census, quantised: bool) -> tuple[str, ...]:
    """What makes INT8 not pay, in sentences; nothing for a file that is not quantised."""
    total, int8 = census.convolutions(), census.convolutions("Int8")
    if not quantised or total == 0:
        return ()
    if int8 == 0:
        return ("No convolution reads int8: Q/DQ costs here and gains nothing. Build the FP16 file.",)
    found = []
    if int8 < total:
        found.append(f"{total - int8} of {total} convolutions run in floating point.")
    back = sum(n for kind, reads, writes, n in census.kinds if kind in CONVOLUTIONS and _turns_back(reads, writes))
    if back:
        found.append(
            f"{back} of {int8} int8 convolutions write floating point, and {census.conversions} layers convert: "
            "FP16 may be faster. toolkit bench decides."
        )
    return tuple(found)


def _turns_back(reads: str, writes: str) -> bool:
    return reads.split("+")[0] == "Int8" and writes != "Int8"
