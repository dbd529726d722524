"""What holds for every test: signals act as at a terminal, and no test writes into the user's cache.

Each worker begins with its share of the long files, so that at the end none waits long for another: what is stolen from
a worker is the end of its list.

A training looks at all that the modules of its script hold, and at their files: here these are the modules of tests.
Those of other tests, and the rows of the golden tables, are hidden from it, or each would look at ten thousand objects
of theirs at every save.

What was there before a file's tests is kept from the garbage collector: it would look at a million objects again each
time a test, or the interpreter, has it collect a few.

With --durations N stands at the end what the N dearest files cost, in seconds of a processor: on a shared machine those
of a clock say little.

A shell in the background lets its children ignore SIGINT, and nohup SIGHUP; a training respects that, as it should.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests import processes  # while the environment is as it was found
from tests.hidden import TESTS, hidden

os.environ["TZ"] = "UTC"  # people are told times by their own clock: here it is everywhere the same
if hasattr(time, "tzset"):
    time.tzset()

LONG_NAMES = (
    "guide_sonar",
    "disk",
    "random_edits",
    "hostile_names",
    "stops",
    "training",
    "handover",
    "model",
    "notebook",
    "demo",
    "mmengine_both_ways",
    "log",
)
LONG = {f"test_{name}.py" for name in LONG_NAMES}
ROWS = ("launch_rows", "retention_rows", "copy_rows")
LONG_FOLDERS = ("twin", "crash", "golden")
AS_AT_A_TERMINAL = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}

for name, handler in AS_AT_A_TERMINAL.items():
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    files = dict.fromkeys(item.path for item in items)
    long = [path for path in files if path.name in LONG or path.parent.name in LONG_FOLDERS]
    of_worker = {path: place % workers for place, path in enumerate(long)}
    others = [item for item in items if item.path not in of_worker]
    shared, left = list[pytest.Item](), len(items)
    for worker in range(workers):  # pytest-xdist gives each of them one piece of the list, of equal length
        own = [item for item in items if of_worker.get(item.path) == worker]
        fill = max(left // (workers - worker) - len(own), 0)
        shared += own + others[:fill]
        others, left = others[fill:], len(items) - len(shared)
    items[:] = shared + others


_spent_s = 0.0
_by_processor: Counter[str] = Counter()
_by_clock: Counter[str] = Counter()


def processor_s() -> float:
    """What this process and the children that it has awaited have used."""
    return sum(os.times()[:4])


def pytest_collection_finish() -> None:
    global _spent_s
    _spent_s = processor_s()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    global _spent_s
    report = yield
    before, _spent_s = _spent_s, processor_s()
    report.processor_s = _spent_s - before
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    file = report.nodeid.partition("::")[0]
    _by_processor[file] += getattr(report, "processor_s", 0.0)
    _by_clock[file] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    shown = config.getoption("durations")
    if shown is not None:
        terminalreporter.section("dearest files, in seconds of a processor and of a clock")
        for file, seconds in _by_processor.most_common(shown or None):
            terminalreporter.write_line(f"{seconds:8.1f} {_by_clock[file]:8.1f}  {file}")
        terminalreporter.write_line(f"{_by_processor.total():8.1f} {_by_clock.total():8.1f}  all {len(_by_processor)}")


@pytest.fixture(autouse=True, scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True, scope="session")
def _kinds_of_commands(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = tmp_path_factory.getbasetemp()
    processes.kinds_of_all = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kinds-of-commands"
    processes.kinds_of_all.mkdir(exist_ok=True)


@pytest.fixture(autouse=True)
def _nothing_moves_the_next_test() -> Iterator[None]:
    """A launch looks around the current folder: whoever leaves another one behind decides what the next test sees."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before, "a test, or what it was given, has changed the current folder for those that follow"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder with no other test's beside it: a launch looks around for runs of its own name."""
    alone = tmp_path / "alone"
    alone.mkdir()
    return alone


@pytest.fixture(autouse=True, scope="session")
def _modules_of_tests() -> Iterator[dict[str, ModuleType]]:
    with hidden(TESTS, named=("test_", *ROWS)) as gone:
        yield gone


@pytest.fixture(autouse=True, scope="module")
def _own_module_is_of_the_script(
    request: pytest.FixtureRequest, _modules_of_tests: dict[str, ModuleType]
) -> Iterator[None]:
    own = {request.module.__name__, *(getattr(value, "__module__", "") for value in vars(request.module).values())}
    back = {name: _modules_of_tests[name] for name in own & _modules_of_tests.keys()}
    sys.modules.update(back)
    yield
    for name in back:
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True, scope="module")
def _what_is_there_is_no_garbage() -> None:
    gc.collect()  # it looks at what came since the last time, and so does each training
    gc.freeze()
