"""`toolkit doctor`: what works here, shown by computing with it."""

from __future__ import annotations

from typing import Any


def command() -> dict[str, Any]:
    """Try every backend by computing something with it; print versions, GPU, driver and the command that mends a lack.

    Example: toolkit doctor

    Exits 1 if something that is needed or installed does not work; what is optional and absent is only listed.
    """
    from toolkit.cli.console import Styled, green, red, say, steps, table
    from toolkit.doctor.checks import CHECKS, check, examined

    found = []
    with steps() as step:
        for index, name in enumerate(CHECKS):
            step("examine this machine", index, len(CHECKS))
            found.append(check(name))
        step("examine this machine", len(CHECKS), len(CHECKS))
    marks = {True: green("ok"), False: red("broken"), None: Styled("absent", "dim")}
    rows = [(c.name, marks[c.ok], c.version or "", c.detail + (f"\n-> {c.fix}" if c.fix else "")) for c in found]
    table("This machine", ("what", "state<", "version<", "shown by<"), rows)
    broken = [c.name for c in found if c.ok is False]
    say(red(f"broken: {', '.join(broken)}") if broken else "Nothing that is installed is broken.")
    return examined(found).as_dict()
