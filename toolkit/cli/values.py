"""What an option's value may be, by the option's name: looked at before a command does anything, wherever it is one's.

A wrong value is a wrong command line: it exits 2. What a value names, a file or a model, is looked for later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from toolkit.cli import options
from toolkit.errors import ToolkitError

Check = Callable[[str], object]


class WrongValue(ToolkitError):
    """A value that its option does not take, whatever lies on this machine."""


def require_values(verb: str, values: dict[str, Any], words: dict[str, str]) -> None:
    """Looks at every value that was typed.

    Args:
        verb: the command, as "bench".
        values: of its parameters by name; None was not typed.
        words: of each option by the parameter's name, as "--batch".

    Raises:
        WrongValue: names the option, what was found and what is allowed.
    """
    for name, value in values.items():
        option = words.get(name, "")
        if isinstance(value, float) and not math.isfinite(value):
            raise WrongValue(f"{option} is no number", found=value, allowed="a finite number")
        check = CHECKS.get(f"{verb} {option}") or CHECKS.get(option)
        if check is not None and value is not None:
            try:
                check(str(value))
            except WrongValue:
                raise
            except ToolkitError as error:
                raise WrongValue(error.what, found=error.found, allowed=error.allowed, fix=error.fix) from error


def _one_of(what: str, allowed: Callable[[], Sequence[str]], several: bool = False) -> Check:
    """One word, or several with commas; the words are asked for when a value is looked at."""

    def check(value: str) -> None:
        found = {part.strip() for part in value.split(",")} - {""} if several else {value}
        if not found or not found <= set(allowed()):
            raise WrongValue(f"unknown {what}", found=value, allowed=", ".join(allowed()))

    return check


def _backends(*others: str) -> Check:
    def allowed() -> Sequence[str]:
        from toolkit.deployment.runners import BACKENDS

        return others or ("all", *BACKENDS)

    return _one_of("backend", allowed, several="auto" not in others)


def _precisions(*others: str) -> Callable[[], Sequence[str]]:
    def allowed() -> Sequence[str]:
        from toolkit.bundle.manifest import VARIANTS

        return (*VARIANTS, *others)

    return allowed


def _built() -> Sequence[str]:
    from toolkit.bundle.manifest import PRECISIONS

    return (*PRECISIONS, "best")


def _arch(value: str) -> None:
    from toolkit.models.resnet import config_from_name

    config_from_name(value)


def _method(value: str) -> None:
    from toolkit.calibration.methods import require_method

    require_method(value)


def _resize(value: str) -> None:
    from toolkit.data.fit import require_resize

    require_resize(value)


def _wait() -> Sequence[str]:
    from toolkit.runtime.cuda.libcuda import WAITS

    return WAITS


def _compatible() -> Sequence[str]:
    from toolkit.target import COMPATIBLE

    return COMPATIBLE


def _name(value: str) -> None:
    from toolkit.workspace import require_name

    require_name(value)


def _batch(value: str) -> None:
    from toolkit.target import require_batch

    require_batch(*(options.batch_from_text(value) or (1, 1, 1)))


def _gate(value: str) -> None:
    if 0 < float(value) <= 1:
        meant = f"{100 * float(value):g}"
        raise WrongValue("--gate is in percent", found=value, allowed="as in 99 or 99.9", fix=f"--gate {meant}")


def _std(value: str) -> None:
    if min(options.numbers_from_text(value, "--std") or (0,)) <= 0:
        raise WrongValue("--std is what pixels are divided by", found=value, allowed="numbers above 0")


def _numbers(option: str, low: int, high: int) -> Check:
    return lambda value: options.numbers_within(value, option, low=low, high=high)


CHECKS: dict[str, Check] = {
    "--amp": _one_of("--amp", lambda: ("auto", "bf16", "off")),
    "--arch": _arch,
    "--backend": _backends(),
    "predict --backend": _backends("auto", "trt", "ort", "torch"),
    "selftest --backend": _backends("all", "ort", "trt", "ort-cuda", "ort-trt"),
    "--batch": _batch,
    "train --batch": lambda value: None,
    "bench --batch": _numbers("--batch", 1, 4096),
    "--blocks": _numbers("--blocks", 1, 256),
    "--compatible": _one_of("compatibility", _compatible),
    "--device": _one_of("device", lambda: ("auto", "cpu", "cuda")),
    "--gate": _gate,
    "--graph": _one_of("choice of CUDA graphs", lambda: ("on", "off", "both")),
    "--kwargs": options.kwargs_from_text,
    "--labels": options.labels_from_text,
    "--layout": _one_of("layout", lambda: ("nchw", "nhwc")),
    "--max-regression": options.part_from_percent,
    "--mean": lambda value: options.numbers_from_text(value, "--mean"),
    "--method": _method,
    "--name": _name,
    "--pixels": _one_of("scale of pixels", lambda: ("0-1", "0-255")),
    "--precision": _one_of("precision", _precisions("all"), several=True),
    "build --precision": _one_of("precision", _built, several=True),
    "predict --precision": _one_of("precision", _precisions("best")),
    "--resize": _resize,
    "--size": options.size_from_text,
    "--std": _std,
    "--stem-kernel": _one_of("kernel of the stem", lambda: ("1", "3")),
    "--strides": _numbers("--strides", 1, 8),
    "--wait": _one_of("way to wait for the GPU", _wait),
    "--widths": _numbers("--widths", 1, 4096),
}
