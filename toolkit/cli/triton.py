"""`toolkit triton`: a bundle as a model repository of Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from toolkit.cli import options


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
    output: Path = typer.Option(Path("model_repository"), "-o", "--output", help="The repository to write."),
    precision: str = typer.Option(
        "all", "--precision", help="fp32, fp16, int8, int8-fp16, int8-cpu, several with commas, or all."
    ),
    max_batch: int = typer.Option(64, "--max-batch", min=1, max=4096, help="Largest batch of the ONNX models."),
    delay: int = typer.Option(100, "--delay", min=0, max=1_000_000, help="Microseconds a request waits for others."),
    instances: int = typer.Option(1, "--instances", min=1, max=64, help="Copies of each model on each device."),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Write a folder a model: ONNX files and full-TensorRT engines, dynamic batching, labels, warm-up on golden images.

    A server without a GPU loads fp32 and int8-cpu: --precision fp32,int8-cpu.

    Examples:
      toolkit triton bundles/my-net -o model_repository

      toolkit triton bundles/my-net --precision fp32,int8-cpu --instances 2
    """
    from toolkit.bundle.reading import bundle_from_folder, require_precisions
    from toolkit.bundle.requirements import requirement
    from toolkit.cli.console import note, say, table, yellow
    from toolkit.deployment.triton import Serving, repository_from_bundle

    opened = bundle_from_folder(bundle, wanted=requirement(key, min_version))
    note(f"bundle: {opened.folder}")
    wanted = require_precisions(precision, opened)
    made = repository_from_bundle(opened, output, wanted, Serving(max_batch, delay, instances))
    rows = [(model.name, model.backend, model.source, model.needs) for model in made.written]
    table(f"{output}", ("model", "backend<", "from<", "needs<"), rows)
    for file, reason in made.left_out.items():
        say(yellow(f"left out: {file}"), f": {reason}")
    note("Only a running server can show " + "; ".join(made.only_a_server_can_show))
    return made.as_dict()
