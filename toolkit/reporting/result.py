"""What `toolkit report` prints: the verdict that the page begins with, and the files that were written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from toolkit.storage.documents import Document
from toolkit.storage.hints import Items, Limits, Sha256


@dataclass(frozen=True)
class Deploy(Document):
    """What to deploy.

    Attributes:
        runner: backend and variant, such as "ort int8-cpu".
        file: in the bundle.
    """

    runner: str
    file: str | None


@dataclass(frozen=True)
class WrittenFile(Document):
    """A page or card."""

    file: Path
    bytes: Annotated[int, Limits(least=1)]


@dataclass(frozen=True)
class Reported(Document):
    """What `toolkit.report` returns, and toolkit report prints.

    Attributes:
        ok: the page was written; what it says of the bundle is in verdict and deploy.
        tool: version.
        bundle: its folder.
        manifest_sha256: of manifest.json's bytes.
        verdict: the sentence that the page begins with.
        deploy: null where nothing can be recommended.
        not_covered: what the verdict does not say, in sentences.
    """

    SCHEMA = "toolkit/report/1"
    ok: Literal[True]
    tool: str
    bundle: Path
    model: str
    manifest_sha256: Sha256
    verdict: str
    deploy: Deploy | None
    not_covered: tuple[str, ...]
    files: Annotated[tuple[WrittenFile, ...], Items(least=1)]
