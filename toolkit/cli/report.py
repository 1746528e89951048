"""`toolkit report`: one page that a manager and an engineer both use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from toolkit.cli import options


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
    output: Path = typer.Option(Path("report.html"), "-o", "--output", help="The page to write."),
    verify: Path | None = typer.Option(
        None, "--verify", help="What toolkit verify printed. (default: it is run now, on every backend here)"
    ),
    bench: Path | None = typer.Option(None, "--bench", help="What toolkit bench printed. (default: it is run now)"),
    sensitivity: Path | None = typer.Option(
        None, "--sensitivity", help="sensitivity.json. (default: that of calibration/MODEL.sensitivity, if any)"
    ),
    markdown: Path | None = typer.Option(None, "--markdown", help="Write a model card in Markdown too."),
    data: str | None = typer.Option(
        None, "--data", help="The images that judge, as in toolkit verify. (default: the model's own)"
    ),
    sample: int | None = typer.Option(None, "--sample", min=1, help="So many of them, as in toolkit verify."),
    convert: bool = options.CONVERT,
    resize: str | None = options.RESIZE,
    skip_bad: bool = options.SKIP_BAD,
    gate: float | None = typer.Option(
        None, "--gate", min=0, max=100, help="Percent of fp32's right answers to keep, as in toolkit verify."
    ),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Write one self-contained HTML page: what to deploy, what it costs, how that was measured.

    Examples:
      toolkit report

      toolkit report bundles/my-net -o my-net.html --markdown CARD.md --data fashion-mnist

      toolkit report bundles/my-net --verify verify.json --bench bench.json
    """
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.bundle.requirements import requirement
    from toolkit.cli.console import note, say, steps
    from toolkit.cli.words import typed
    from toolkit.reporting.report import report

    opened = bundle_from_folder(bundle, wanted=requirement(key, min_version))
    note(f"bundle: {opened.folder}")
    with steps() as step:
        written = report(
            opened, output, verify=verify, bench=bench, sensitivity=sensitivity, markdown=markdown, data=data,
            sample=sample, convert=convert, resize=resize, skip_bad=skip_bad, gate=gate, say=typed, on_step=step,
        )  # fmt: skip
    say(f"{output}: {written.verdict}")
    return written.as_dict()
