"""Manifests of bundles that a test tampered with: as if the host had said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.bundle.sealing import manifest_text
from toolkit.storage.files import sha256_of_file


def rehashed(folder: Path, **changes: Any) -> Path:
    """A bundle's manifest with other entries, its digest over them, and the hashes of its files as they lie there."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    for name, entry in manifest["files"].items():
        if (folder / name).is_file():
            entry |= {"sha256": sha256_of_file(folder / name), "bytes": (folder / name).stat().st_size}
    (folder / "manifest.json").write_text(manifest_text(manifest))
    return folder
