"""The `toolkit` command, also as `python -m toolkit`: a command line that cannot be imported is one error, too."""

from __future__ import annotations

import gc
import json
import sys

from toolkit.errors import MissingPackage
from toolkit.lazy import needs
from toolkit.storage.documents import failure_of


def main() -> None:
    """Runs the command line; exits 1 where a package that it stands on is missing, typer's own included."""
    try:
        with needs("run the command line"):
            from toolkit.cli import run
    except MissingPackage as error:
        print(f"\nerror: {error}", file=sys.stderr)
        print(json.dumps(failure_of(error).as_dict()))
        raise SystemExit(1) from None
    try:
        run()
    finally:
        gc.freeze()  # else Python's end looks through all that PyTorch imported, which takes most of a second


if __name__ == "__main__":
    main()
