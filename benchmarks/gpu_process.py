"""A child process in a group of its own with a limit, ended whole; files of tests whose crashes cost one test each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

GRACE_S = 2.0  # between SIGTERM and SIGKILL
LOOK_S = 0.1
MOST_STARTS = 15  # of one test file
LAST_WORDS = 3000

_running: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (None where it never began), seconds, and one clause, "ok" where all is well."""

    code: int | None
    seconds: float
    words: str

    @property
    def good(self) -> bool:
        """It ended by itself with exit code 0."""
        return self.words == "ok"


def run_in_group(
    command: list[str],
    log: Path,
    limit_s: float,
    environment: dict[str, str],
    folder: Path,
    stdout: Path | None = None,
    overdue: Callable[[], str] = lambda: "",
) -> Ended:
    """Runs a command, its words appended to a log, and ends its whole group at the limit.

    Args:
        stdout: where standard output goes instead of the log.
        overdue: asked all the while; what it says is why the child is ended.
    """
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as words, stdout.open("wb") if stdout else log.open("ab") as out:
        try:
            child = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=words,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Ended(None, 0.0, f"cannot be started: {error}")
        _running.append(child)
        try:
            reason = _waited(child, began + limit_s, limit_s, overdue)
        finally:
            end_group(child)
            _running.remove(child)
    seconds = round(time.monotonic() - began, 2)
    return Ended(child.returncode, seconds, reason or words_of_code(child.returncode))


def _waited(child: subprocess.Popen[bytes], end: float, limit_s: float, overdue: Callable[[], str]) -> str:
    """Why the child must be ended; empty once it ended by itself."""
    while child.poll() is None:
        if time.monotonic() > end:
            return f"ended after {limit_s:.0f} s, its limit"
        if reason := overdue():
            return reason
        time.sleep(LOOK_S)
    return ""


def end_group(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM and, two seconds later, SIGKILL to all that the child started."""
    if child.poll() is None:
        _signal(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    _signal(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # who waits inside the driver cannot be ended; the rest goes on
        child.wait(5)


def end_all() -> None:
    """Ends what runs now, for whoever is told to stop."""
    for child in list(_running):
        end_group(child)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def words_of_code(code: int | None) -> str:
    """An exit code for people: "ok", "exit code 3", "crashed: SIGSEGV"."""
    if code is None:
        return "could not be ended"
    if code < 0:
        try:
            return f"crashed: {signal.Signals(-code).name}"
        except ValueError:
            return f"crashed: signal {-code}"
    return "ok" if code == 0 else f"exit code {code}"


def last_words(log: Path, most: int = LAST_WORDS) -> str:
    """The end of a log."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - most))
            return stream.read().decode(errors="replace").strip()
    except OSError:
        return ""


@dataclass
class Tests:
    """What the tests of one file came to, in the order in which they began.

    Attributes:
        outcomes: by node id: outcome ("passed", "failed", "error", "skipped", "crashed", "hung", "not reached"),
            seconds, reason, text, said.
        problem: why the file as a whole could not run; empty where it could.
    """

    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    problem: str = ""
    starts: int = 0


def events_of(journal: Path) -> list[dict[str, Any]]:
    """The lines of a journal; one that was cut off in the middle is left out."""
    found = []
    try:
        lines = journal.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def open_test(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The test that began last, if it did not end."""
    for event in reversed(events):
        if event["event"] == "end":
            return None
        if event["event"] == "begin":
            return event
    return None


def run_tests(
    command: list[str], journal: Path, log: Path, limit_s: float, environment: dict[str, str], folder: Path
) -> Tests:
    """Runs a pytest command under `tests.gpu.journal`, again for the rest after each crash or hang."""
    end, tests, done = time.monotonic() + limit_s, Tests(), journal.with_suffix(".done")
    environment = environment | {"TOOLKIT_GPU_JOURNAL": str(journal), "TOOLKIT_GPU_DONE": str(done)}
    wanted: list[str] = []
    journal.parent.mkdir(parents=True, exist_ok=True)
    while tests.starts < MOST_STARTS and (left_s := end - time.monotonic()) > 1:
        done.write_text("".join(f"{name}\n" for name in tests.outcomes))
        known, seen = len(tests.outcomes), len(events_of(journal))
        ended = run_in_group(command, log, left_s, environment, folder, overdue=partial(_overdue, journal, seen))
        tests.starts += 1
        events = events_of(journal)[seen:]
        wanted = wanted or next((event["tests"] for event in events if event["event"] == "collected"), [])
        _note(tests, events, ended, log)
        if not wanted:
            tests.problem = f"{ended.words}; no test was collected"
        missing = [name for name in wanted if name not in tests.outcomes]
        if not missing or len(tests.outcomes) == known:
            break
    for name in wanted:
        tests.outcomes.setdefault(name, _outcome("not reached", "the time of its file was over, or its process ended"))
    return tests


def _overdue(journal: Path, seen: int) -> str:
    test = open_test(events_of(journal)[seen:])
    if test is None or time.time() <= test["at"] + test["limit_s"]:
        return ""
    return f"ended, because {test['test'].rpartition('::')[2]} took more than {test['limit_s']:.0f} s"


def _note(tests: Tests, events: list[dict[str, Any]], ended: Ended, log: Path) -> None:
    """Outcomes of one process; a test that began and did not end is what ended the process."""
    for event in events:
        if event["event"] == "end":
            tests.outcomes[event["test"]] = {k: v for k, v in event.items() if k not in ("event", "test", "at")}
    if (test := open_test(events)) is not None:
        outcome = "hung" if ended.words.startswith("ended") else "crashed"
        seconds = round(time.time() - test["at"], 2)
        tests.outcomes[test["test"]] = _outcome(
            outcome, ended.words, _from_the_stacks(last_words(log, 20_000)), seconds
        )


def _from_the_stacks(text: str) -> str:
    """The end of a log, from where faulthandler wrote the stacks, if it did."""
    begins = max(text.rfind(sign) for sign in ("Fatal Python error", "Timeout ("))
    return text[begins:][:LAST_WORDS] if begins >= 0 else text[-LAST_WORDS:]


def _outcome(outcome: str, reason: str, text: str = "", seconds: float = 0.0) -> dict[str, Any]:
    return {"seconds": seconds, "outcome": outcome, "reason": reason, "text": text, "said": ""}
