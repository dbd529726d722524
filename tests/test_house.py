"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "apps").rglob("*.py")])
DISK_OWNER = ROOT / "src" / "unbroken" / "storage" / "files.py"
CHANGES_THE_DISK = {"write_text", "write_bytes", "rename", "unlink", "rmdir", "symlink_to", "touch", "hardlink_to"}
# The sample-data generators write pictures that can be made again at any time; nothing there needs durability.
MAY_WRITE = {DISK_OWNER, ROOT / "apps" / "mapsage" / "mapsage" / "samples.py"}
LONGEST = 480


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), "a docstring is missing"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_grows_beyond_reading(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_the_types_are_told_to_overlook_has_its_reason(path: Path) -> None:
    lines = [line for line in path.read_text("utf-8").splitlines() if "# type: ignore" in line]
    assert [line for line in lines if not re.search(r"# type: ignore\[[\w, -]+\]  # \w", line)] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path not in MAY_WRITE], ids=name_of)
def test_only_one_file_changes_the_disk(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    found = {
        f"line {call.lineno}: .{call.func.attr}()"
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in CHANGES_THE_DISK
        and not (isinstance(call.func.value, ast.Attribute) and call.func.value.attr == "_disk")
        and not (isinstance(call.func.value, ast.Name) and call.func.value.id == "disk")
    }
    assert not found


def imported_by(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["unbroken", "unbroken.cli", "mapsage.recipes", "mapsage.config"])
def test_importing_a_door_loads_no_torch(module: str) -> None:
    assert not {"torch", "numpy", "cv2", "matplotlib"} & imported_by(module)


def test_importing_unbroken_costs_nothing() -> None:
    assert {name for name in imported_by("unbroken") if name.startswith("unbroken")} == {"unbroken"}


READS = {"read_text", "read_bytes"}
STORAGE = ROOT / "src" / "unbroken" / "storage"
# What is opened there is no file that somebody named: folders and locks, parts of this package, the machine's /proc.
MAY_OPEN = {
    *STORAGE.glob("*.py"),
    ROOT / "src" / "unbroken" / "report" / "page" / "document.py",
    ROOT / "src" / "unbroken" / "launch" / "host.py",
}


def opens_to_read(call: ast.Call) -> bool:
    """`open(...)`, `os.open(...)`, `path.open("rb")`, `path.open()`, `path.read_text()`, `ZipFile(path)` ..."""
    match call.func:
        case ast.Name(id="open"):
            return True
        case ast.Attribute(value=ast.Name(id="os"), attr="open"):
            return ast.unparse(call.args[0]) != "os.devnull"
        case ast.Attribute(value=ast.Name(id="tarfile"), attr="open"):
            return "fileobj" not in {keyword.arg for keyword in call.keywords}
        case ast.Attribute(attr="open"):  # of a path: others (an archive, a picture) are given what to open
            mode = call.args[0] if call.args else None
            return mode is None or (isinstance(mode, ast.Constant) and not {"w", "x", "a"} & set(str(mode.value)))
        case ast.Attribute(attr="ZipFile" | "imread" | "loadtxt" | "fromfile" | "memmap" | "load"):
            return ast.unparse(call.args[0]) == "path" if call.args else False
        case ast.Attribute(attr=name):
            return name in READS
    return False


@pytest.mark.parametrize("path", [path for path in SOURCES if path not in MAY_OPEN], ids=name_of)
def test_whatever_somebody_names_is_opened_in_one_way(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    assert not [f"line {call.lineno}: {ast.unparse(call)[:80]}" for call in calls if opens_to_read(call)]


def test_no_module_of_tests_keeps_a_generator(request: pytest.FixtureRequest) -> None:
    """A loop is told of each generator that lives in its process: a test's own would be named in other tests."""
    of_tests = {item.module for item in request.session.items if isinstance(item, pytest.Function)}
    kept = [
        f"{module.__name__}.{name}"
        for module in {*sys.modules.values()} | of_tests
        if module.__name__.startswith("tests.")
        for name, value in vars(module).items()
        if type(value).__name__ in ("Generator", "RandomState", "Random")
    ]
    assert kept == [], "let a fixture set it, and take it away again"
