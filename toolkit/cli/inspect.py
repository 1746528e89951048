"""`toolkit inspect`: what an engine is made of, and whether it can run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def command(
    engine: Path = typer.Argument(..., help="A plan with its sidecar, as in bundles/NAME/engines/model.int8.engine."),
) -> dict[str, Any]:
    """Say which convolutions really run in INT8, how many layers only reformat, and whether this machine can run it.

    Examples:
      toolkit inspect bundles/resnet32x32-fashion/engines/model.int8.engine
    """
    from toolkit.cli.console import note, plain, say, table
    from toolkit.errors import BackendUnavailable
    from toolkit.runtime.census import census_from_dict, warnings_of_census
    from toolkit.runtime.driver import probe_driver
    from toolkit.runtime.preflight import obstacle_to_running, sidecar_of_plan
    from toolkit.runtime.trt import find_tensorrt

    sidecar = sidecar_of_plan(engine)
    try:
        driver = probe_driver()
        obstacle = obstacle_to_running(sidecar, find_tensorrt(driver=driver), driver)
    except BackendUnavailable as error:
        obstacle = error.what
    built, maker = sidecar["tensorrt"], sidecar["builder"]
    where = maker.get("device") or f"a {maker.get('machine')} machine without a GPU"
    note(f"{built['kind']} {built['version']} built it from {sidecar['onnx']['file']} on {where}")
    census = census_from_dict(sidecar.get("census"))
    warnings: tuple[str, ...] = ()
    if census is None:
        say(f"[yellow]layers unknown[/yellow]: {plain(str(sidecar.get('census_reason')))}")
    else:
        rows = [(kind, reads or "-", writes or "-", f"{count}") for kind, reads, writes, count in census.kinds]
        table(f"{engine}: {census.layers} layers", ("layer", "reads<", "writes<", "count"), rows)
        quantised = "int8" in sidecar["onnx"]["file"]
        say(f"{census.convolutions('Int8')} of {census.convolutions()} convolutions read int8; "
            f"{census.conversions} layers only convert.")  # fmt: skip
        warnings = warnings_of_census(census, quantised)
        for warning in warnings:
            say(f"[yellow]{plain(warning)}[/yellow]")
    note(f"it cannot run here: {obstacle}" if obstacle else "it can run here")
    return {
        "ok": True,
        "engine": str(engine.resolve()),
        "sidecar": sidecar,
        "conversions": None if census is None else census.conversions,
        "warnings": list(warnings),
        "runs_here": not obstacle,
        "obstacle": obstacle or None,
    }
