"""What every package of this environment is licensed under, by its own metadata.

    python benchmarks/licenses.py

Prints a table on stderr and one JSON document on stdout; exits with 1 where a package says nothing, or names a license
that asks more of whoever passes the package on than notices (GPL and AGPL).
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions

OURS = "trt-edge-toolkit"
KNOWN = {"cuda-toolkit": "NVIDIA's CUDA EULA"}  # a package of dependencies alone, without a word in its metadata
STRICT = re.compile(r"\bA?GPL", re.IGNORECASE)


def license_of(package: Distribution) -> str:
    """The SPDX expression, else the classifiers, else the first line of the field."""
    facts = package.metadata
    classified = [
        text.rpartition(" :: ")[2] for text in facts.get_all("Classifier", []) if text.startswith("License ::")
    ]
    field = (facts["License"] or "").strip().splitlines()
    said = facts["License-Expression"] or ", ".join(classified) or (field[0][:80] if field else "")
    return said or KNOWN.get(str(facts["Name"]), "")


def main() -> int:
    """Prints every package once."""
    found = {str(one.metadata["Name"]): (one.version, license_of(one)) for one in distributions()}
    for name, (version, license) in sorted(found.items(), key=lambda entry: entry[0].lower()):
        print(f"{name:32} {version:18} {license or 'says nothing'}", file=sys.stderr)
    doubtful = [name for name, (_, license) in found.items() if not license or STRICT.search(license)]
    print("to be looked at: " + (", ".join(sorted(doubtful)) or "none"), file=sys.stderr)
    packages = [{"name": n, "version": v, "license": s} for n, (v, s) in sorted(found.items()) if n != OURS]
    print(json.dumps({"ok": not doubtful, "packages": packages, "doubtful": sorted(doubtful)}))
    return 1 if doubtful else 0


if __name__ == "__main__":
    sys.exit(main())
