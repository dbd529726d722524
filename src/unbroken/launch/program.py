"""Which program this process runs: its script, the modules loaded from around it, its packages, its commit.

Looking at it must never fail a launch: a script may be deleted by now, stand in a zip, or be no file at all; git may
be missing, slow, or belong to somebody else. What cannot be known is left out.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from unbroken.launch.decide import Facts
from unbroken.launch.job import Job, load_attribute
from unbroken.launch.rerun import Started, program_text, this_process
from unbroken.launch.verdicts import Finished, Plan, Resume
from unbroken.run.history import Program, SessionProgram, program_changes, programs_of
from unbroken.storage import read_whole
from unbroken.version import __version__

DIGITS = 16  # of a digest: enough to tell the versions of one file apart
MOST_FILES, MOST_FILE_BYTES, MOST_BYTES = 500, 4 << 20, 16 << 20
MOST_PACKAGES, LONGEST_VERSION = 200, 60
GIT_S = 0.5  # a status that takes longer is not waited for
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
MAIN = ("__main__", "__mp_main__")
OWN = __name__.partition(".")[0]  # its version says which it is


class LoadedProgram:
    """Looks at this process; what was seen once is not read again, as it may have been edited since.

    `package` is that of a recipe, whose script is an installed command: its modules are the program.
    """

    def __init__(self, started: Started, package: str = "") -> None:
        self._package = package
        self._modules, self._bytes = 0, 0
        main = _file_of(sys.modules.get("__main__"))
        typed_in = not package and (not main or (bool(started.shell) and not started.script))
        self._script = "" if package or typed_in or _is_installed(main) else _or_zip(os.path.realpath(main))
        self._folder = Path.cwd() if typed_in else _folder_of(self._script, package)
        commit, dirty, self._around = "", None, ""
        if self._folder is not None:
            above = (self._folder, *self._folder.parents)
            # os.path, as it answers False where it cannot look
            root = next((place for place in above if os.path.exists(place / ".git")), self._folder)  # noqa: PTH110
            commit, dirty = _git(root) if not _is_installed(f"{self._folder}{os.sep}") else ("", None)
            self._around = f"{root}{os.sep}"
        self._program = Program(
            main=self._name(self._script) if self._script else "",
            files=_typed_text(started) if typed_in else {},
            versions=dict(_versions()),
            commit=commit,
            dirty=dirty,
        )

    def __call__(self) -> Program:
        """The program as far as it is loaded."""
        if len(sys.modules) != self._modules:
            self._modules, files = len(sys.modules), dict(self._program.files)
            for path in self._loaded():
                if len(files) < MOST_FILES and (name := self._name(path)) not in files:
                    files[name] = self._digest(path)
            self._program = replace(self._program, files=files)
        return self._program

    def _loaded(self) -> Iterator[str]:
        if self._script:
            yield self._script
        for name, module in list(sys.modules.items()):
            top = name.partition(".")[0]
            if top == OWN or name in MAIN or not (file := _file_of(module)):
                continue
            if top == self._package or (self._around and file.startswith(self._around) and not _is_installed(file)):
                yield _or_zip(file)

    def _name(self, file: str) -> str:
        """As it is called from the script's folder on; of a zip, the zip."""
        try:
            return _printable(os.path.relpath(file, self._folder))
        except ValueError:  # another drive
            return _printable(file)

    def _digest(self, path: str) -> str:
        with suppress(OSError):
            data = read_whole(path, most_bytes=min(MOST_FILE_BYTES, MOST_BYTES - self._bytes))
            self._bytes += len(data)
            return _digest(data)
        return ""


def session_program(job: Job, plan: Plan, facts: Facts) -> SessionProgram:
    """The program that this process runs, and those of the history that it goes on with."""
    if job.task and not isinstance(plan, Finished):
        load_attribute(job.task)  # what is loaded for it belongs to the program
    package = job.task.partition(":")[0].partition(".")[0]
    earlier = programs_of(facts.history_of(plan).events) if isinstance(plan, Resume) else {}
    return SessionProgram(look=LoadedProgram(this_process(), package), earlier=earlier)


def changes_of_program(plan: Plan, program: SessionProgram) -> Iterator[str]:
    """What is not the same any more since the session that saved the state."""
    if isinstance(plan, Resume) and program.earlier:
        wrote = str(plan.source.inside.get("session"))
        session = wrote if wrote in program.earlier else [*program.earlier][-1]
        if changes := program_changes(program.earlier[session], program.look()):
            yield f"the program changed since session {session}: {', '.join(changes)}"


def _file_of(module: object) -> str:
    """The file that a module was read from; "" for what has none.

    Nothing is asked of the module itself: one that is loaded when it is first used would be loaded by that.
    """
    if not isinstance(module, ModuleType):
        return ""
    file = ModuleType.__getattribute__(module, "__dict__").get("__file__")
    if not isinstance(file, str) or not file or file.startswith("<"):  # "<stdin>"
        return ""
    return os.path.abspath(file)  # noqa: PTH100 - links stay as they are


def _or_zip(file: str) -> str:
    """The same, or the zip that it stands in."""
    if os.path.exists(file):  # noqa: PTH110 - False where it cannot be looked at
        return file
    return next((str(place) for place in Path(file).parents if os.path.isfile(place)), file)  # noqa: PTH113 - as above


def _folder_of(script: str, package: str) -> Path | None:
    """From where on files are named: where a script, or the outermost package of it, or of a recipe, lies."""
    if package:
        module = sys.modules.get(package)
        place = next(iter(getattr(module, "__path__", ())), "") or _file_of(module)
        return Path(place).parent if place else None
    within = vars(sys.modules["__main__"]).get("__package__")
    levels = len(within.split(".")) if isinstance(within, str) and within else 0
    return Path(script).parents[min(levels, len(Path(script).parents) - 1)] if script else None


def _is_installed(file: str) -> bool:
    """Whether a file came with a package or with Python, whose versions are recorded."""
    return any(part in file for part in INSTALLED) or file.startswith(_of_python())


@cache
def _of_python() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{paths[kind]}{os.sep}" for kind in ("stdlib", "platstdlib", "scripts"))


def _typed_text(started: Started) -> dict[str, str]:
    """The program that stands in no file: behind `-c`, or in the cells that were run so far."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and started.shell else None
    cells = getattr(shell, "user_ns", {}).get("In")
    if isinstance(cells, list):
        text = "\0".join(dict.fromkeys(cell for cell in cells if isinstance(cell, str)))
        return {"the cells run before": _digest(text.encode("utf-8", "replace"))}
    text = program_text(started.words)
    return {"the text after -c": _digest(text.encode("utf-8", "replace"))} if text else {}


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield OWN, __version__  # which the package loads on first use
    names = [name for name in list(sys.modules) if "." not in name and name not in sys.stdlib_module_names]
    for name in sorted(names, key=lambda name: (name not in ("torch", "numpy"), name))[:MOST_PACKAGES]:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and name != OWN and not name.startswith("_"):
            version = ModuleType.__getattribute__(module, "__dict__").get("__version__")
            if isinstance(version, str) and len(version) <= LONGEST_VERSION:
                yield _printable(name), _printable(str(version))


def _git(root: Path) -> tuple[str, bool | None]:
    """The commit that is checked out, and whether files that git follows differ from it."""
    words = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(root), "status"]
    asked = [*words, "--porcelain=v2", "--branch", "--untracked-files=no", "--no-renames"]
    try:
        said = subprocess.run(
            asked,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GIT_S,
            start_new_session=True,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return "", None
    lines = said.stdout.decode("utf-8", "replace").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    return ("", None) if not commit.isalnum() else (commit, any(not line.startswith("#") for line in lines))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def _printable(name: str) -> str:
    """A name as a record holds it: with `/`, and with nothing that is no text."""
    return name.replace(os.sep, "/").encode("utf-8", "backslashreplace").decode("utf-8")
