"""A pytest plugin: every mutant is tried by the tests that reach its function, in a fork that has all of them loaded.

First the tests run without any mutant, and it is noted which functions each of them reaches. Then a mutant costs a fork
and its tests, the quickest first, until one fails; pytest does not start again.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

SURVIVED, KILLED, UNREACHED = 0, 1, 2
PATIENCE = 30, 5.0  # so many times what its tests take, and seconds, of a processor; then it counts as killed
WAIT_S = 600  # a fork that waits for something that never comes


class Trial:
    """Tries mutants; `found(name, code)` hears of each."""

    def __init__(self, names: list[str], children: int, found: Callable[[str, int], None]) -> None:
        """Names as mutmut gives them, and how many are tried at a time."""
        self.names, self.children, self.found = names, children, found
        self.reached: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        self.seconds: dict[pytest.Item, float] = {}
        self.fixtures: defaultdict[Any, set[str]] = defaultdict(set)
        self.running: dict[int, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Notes which functions a fixture reaches: every test that uses it does, too."""
        before = set(state()._stats)
        state()._stats.clear()
        try:
            return (yield)
        finally:
            self.fixtures[fixturedef] |= state()._stats
            state()._stats.update(before)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """A failure ends a mutant: it is not made smaller, nor explained."""
        from hypothesis import Phase, settings  # not before pytest, which wants to rewrite its assertions

        settings.register_profile("mutants", settings.default, phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Takes the place of pytest's own loop."""
        set_mutant_under_test("stats")
        for item in session.items:
            self._noted(item, session)
        if session.testsfailed:
            raise session.Failed(f"{session.testsfailed} tests fail without any mutant")
        set_mutant_under_test("")
        self._fixtures_forgotten()
        gc.collect()
        gc.freeze()  # so that a fork's collections touch, and copy, nothing of what is loaded
        for name in self.names:
            self._tried(name, session)
        while self.running:
            self._ended()
        return True

    def _noted(self, item: pytest.Item, session: pytest.Session) -> None:
        state()._stats.clear()
        start = time.process_time()
        # What a whole session shares stays set up for the forks: training a model, say.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=session)
        self.seconds[item] = time.process_time() - start
        shared: Any = getattr(item, "_fixtureinfo", None)
        used = [one for many in shared.name2fixturedefs.values() for one in many] if shared else []
        for function in state()._stats.union(*(self.fixtures[one] for one in used)):
            self.reached[function].append(item)

    def _fixtures_forgotten(self) -> None:
        """What was made by functions that are changed is made again in every fork, and what was made of that."""
        names = {one.argname for one, functions in self.fixtures.items() if functions}
        while more := {one.argname for one in self.fixtures if names & set(one.argnames)} - names:
            names |= more
        for one in self.fixtures:
            if one.argname in names:
                one.cached_result = None

    def _tried(self, name: str, session: pytest.Session) -> None:
        items = sorted(self.reached[mangled_name_from_mutant_name(name)], key=lambda item: self.seconds[item])
        if not items:
            self.found(name, UNREACHED)
            return
        while len(self.running) >= self.children:
            self._ended()
        if (number := os.fork()) == 0:
            os._exit(_code(name, items, sum(self.seconds[item] for item in items), session))
        self.running[number] = name

    def _ended(self) -> None:
        number, status = os.waitpid(-1, 0)
        if number in self.running:
            self.found(self.running.pop(number), SURVIVED if status == 0 else KILLED)


def _code(name: str, items: list[pytest.Item], seconds: float, session: pytest.Session) -> int:
    """In the fork: 0 where every test passes."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    most = int(PATIENCE[0] * seconds + PATIENCE[1])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + most, int(used) + most + 1))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(WAIT_S)
    set_mutant_under_test(name)
    try:
        for item in items:
            if any(report.failed for report in runtestprotocol(item, log=False, nextitem=session)):  # type: ignore[arg-type]
                return KILLED
    except BaseException:
        return KILLED
    return SURVIVED


def run(tests: list[str], without: str, trial: Trial) -> int:
    """Pytest's exit code."""
    sys.path.insert(0, os.getcwd())
    sys.path[:] = list(dict.fromkeys(sys.path))
    plugins = ("cacheprovider", "xdist", "faulthandler", "tests.leftovers")
    options = [word for name in plugins for word in ("-p", f"no:{name}")]
    # A busy machine would kill a mutant where a test takes the time.
    options += ["-m", "not slow and not gpu", "-k", f"not ({without.replace(' ', '_')})", "--rootdir=.", "-q"]
    # Otherwise pytest parses a file with all its mutants for the words of a failure: a second each.
    return pytest.main([*options, "--tb=native", *tests], plugins=[trial])
