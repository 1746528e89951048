"""`toolkit selftest`: on the device, in seconds, without torch: is it still the same model, as fast as before?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from toolkit.cli import options

COLORS = {"ok": "green", "failed": "red", "not run": "yellow"}


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
    backend: str = typer.Option(
        "all", "--backend", help="all, or of ort, trt, ort-cuda, ort-trt, with commas; one that is named must run."
    ),
    seconds: float = typer.Option(0.3, "--seconds", min=0.01, max=60, help="Measuring time of each runner."),
    max_slowdown: float = typer.Option(
        1.5, "--max-slowdown", min=1.0, help="Times the saved median that a runner may take."
    ),
    save: bool = typer.Option(False, "--save", help="Keep versions and speed of this device in the bundle."),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Check a bundle on the device that runs it: hashes, golden vectors, engines, and speed since --save.

    Run it with --save when the device is set up, and without after every upgrade of driver, JetPack or Python
    packages: it names the engine that must be built again and the runner that answers otherwise or became slower.

    Examples:
      toolkit selftest bundles/my-net --save

      toolkit selftest bundles/my-net

      toolkit selftest bundles/my-net --backend trt --max-slowdown 1.2
    """
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.bundle.requirements import requirement
    from toolkit.cli.console import Styled, note, red, say, table
    from toolkit.deployment.selftest import FAILED, NOT_RUN, selftest

    opened = bundle_from_folder(bundle, wanted=requirement(key, min_version))
    note(f"bundle: {opened.folder}")
    found = selftest(opened, backends=backend, seconds=seconds, max_slowdown=max_slowdown, save=save)
    rows = [(check.what, Styled(check.verdict, COLORS[check.verdict]), check.found) for check in found.checks]
    table(f"{opened.model} on this device", ("check", "verdict<", "found<"), rows)
    for check in found.checks:
        if check.fix and check.verdict != NOT_RUN:
            say(Styled(check.what, "red" if check.verdict == FAILED else "yellow"), f": {check.fix}")
    say("Still the same model." if found.ok else red("Not fit for use as it is."))
    return found.as_dict()
