"""Other people's statistics, which ours are held against."""

from __future__ import annotations

from typing import Any

import pytest


def oracle(module: str) -> Any:
    """Imported by who asks it: that takes a second, and not every worker of these tests does."""
    return pytest.importorskip(module, reason="needs the dependency group oracles")
