"""A row of the table: a fault, how often it was tried, what survived, and the worst that it cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tries import Done

SECONDS, MIB = 2.0, 300.0  # what a refusal may take beyond the import


@dataclass
class Row:
    """One fault.

    Attributes:
        lost: a sentence for each try that did not survive.
        seconds, mib: the worst of a refusal, or of the command that came next.
    """

    fault: str
    tries: int = 0
    survived: int = 0
    seconds: float = 0.0
    mib: float = 0.0
    lost: list[str] = field(default_factory=list)

    def add(self, what: str, fault: str, *done: Done) -> bool:
        """Counts a try; `fault` says what is wrong, and is empty where it survived. True where it did."""
        self.tries += 1
        self.survived += not fault
        self.seconds = max([self.seconds, *(one.seconds for one in done)])
        self.mib = max([self.mib, *(one.mib for one in done)])
        if fault:
            last = "".join(one.text[-1500:] for one in done)
            self.lost.append(f"{what}: {fault}")
            print(f"  LOST {self.fault}, {what}: {fault}\n{last}", file=sys.stderr)
        return not fault

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"lost": len(self.lost), "how": self.lost}


@dataclass
class Table:
    """All rows, printed while they come."""

    rows: list[Row] = field(default_factory=list)

    @contextmanager
    def row(self, fault: str) -> Iterator[Row]:
        """A row that is filled in the block."""
        if not self.rows:
            print(
                f"{'fault':44} {'tries':>5} {'survived':>8} {'lost':>4} {'worst s':>7} {'worst MiB':>9}",
                file=sys.stderr,
            )
        row = Row(fault)
        yield row
        if row.tries:
            self.rows.append(row)
            print(
                f"{row.fault:44} {row.tries:5} {row.survived:8} {len(row.lost):4} {row.seconds:7.2f} {row.mib:9.0f}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
