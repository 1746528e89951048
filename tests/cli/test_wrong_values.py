"""Claims about values: a wrong one of any option of any command exits 2, in words, before anything is done."""

from __future__ import annotations

import typing
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.models import ArgumentInfo

from tests.cli.conftest import in_this_process
from tests.cli.test_reference import Command, commands, parameters
from toolkit.cli import UsageError, app, command_line
from toolkit.cli.values import WrongValue

NOTHING, MANY = "nonsense,,=", "-7"
# What these name is looked for: a file, a folder or an entry that may be there exits 1 where it is not.
NAMES = {
    "--data", "--from", "--config", "--target", "--weights", "--output-name", "--only", "--checkpoint", "--record",
    "--key", "--private-key", "--output", "--csv", "--save", "--baseline", "--against", "--verify", "--bench",
    "--sensitivity", "--markdown", "--save-worst",
}  # fmt: skip
# One word, one meaning: these two have it in several forms.
FORMS = {
    "--batch": "how many images in a step of training, in calls of an engine, in calls that are timed",
    "--save": "keeps what was measured, for a comparison later: where it is told, or in the bundle",
}


def _options(command: Command) -> list[tuple[str, set[Any]]]:
    """Each option by its long name, with the types that its hint holds."""
    return [
        ((info.param_decls or ("",))[-1].partition("/")[0], {*typing.get_args(hint), hint})
        for _, hint, info in parameters(command)
        if not isinstance(info, ArgumentInfo)
    ]


def _line(words: str, command: Command, option: str, value: str) -> list[str]:
    """The command with what it cannot do without, and a value."""
    given = [(info, info.param_decls or ()) for _, _, info in parameters(command) if info.default is ...]
    needed = ["x" for _, named in given if not named]
    needed += [word for _, named in given if named and named[-1] != option for word in (named[-1], "x")]
    return [*words.split()[1:], *needed, f"{option}={value}"]


VALUES = [
    (words, command, option, value)
    for words, command in commands(app)
    for option, types in _options(command)
    if bool not in types and option not in NAMES
    for value in ([NOTHING, MANY, "nan"] if types & {int, float} else [NOTHING])
]


@pytest.mark.slow
def test_a_wrong_value_of_any_option_exits_2_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    group, wrong = command_line(), []
    assert len(VALUES) > 150
    for words, command, option, value in VALUES:
        line = _line(words, command, option, value)
        try:
            group(args=line, standalone_mode=False, prog_name="toolkit", obj=line)
        except (UsageError, WrongValue):
            continue
        except (Exception, SystemExit) as error:
            wrong.append((" ".join(line), repr(error)))
        else:
            wrong.append((" ".join(line), "taken"))
    assert wrong == []
    toolkit = in_this_process(capsys)
    lines = {
        "bench --seconds=-7": "--seconds",
        "bench --backend=x,": "unknown backend",
        "verify --gate 0.99": "--gate 99",
    }
    for text, said in lines.items():
        answer = toolkit(*text.split())
        assert (answer.code, answer.document["ok"]) == (2, False)
        assert said in answer.text
    assert list(tmp_path.iterdir()) == []


def test_an_option_takes_the_same_kind_of_value_in_every_command() -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for _, command in commands(app):
        for option, types in _options(command):
            kinds[option] |= {kind.__name__ for kind in types & {int, float, bool, str, Path}}
    assert {option for option, found in kinds.items() if len(found) > 1} == set(FORMS)
