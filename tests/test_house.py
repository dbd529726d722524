"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "apps").rglob("*.py")])
STORAGE = ROOT / "src" / "unbroken" / "storage"
APPS = ROOT / "apps"
# Who may change the disk beside storage/files.py, by which calls, and why.
MAY_CHANGE: dict[Path, set[str]] = {
    STORAGE / "file_lock.py": {"os.open"},  # taking a lock is creating its file
    STORAGE / "soft_lock.py": {"os.open", "os.utime"},  # and its sign of life is the time of the file
    # A child writes what it says itself, into a file that it is given open.
    ROOT / "src" / "unbroken" / "prove" / "trial.py": {".open"},
    ROOT / "src" / "unbroken" / "demo" / "story.py": {".open"},
}
OF_PATHS = re.compile("write_text|write_bytes|rename|unlink|rmdir|mkdir|symlink_to|hardlink_to|touch|chmod")
OF_OS = re.compile("replace|rename|remove|unlink|mkdir|makedirs|rmdir|link|symlink|truncate|utime|chmod")
OF_SHUTIL = re.compile("copy|copy2|copyfile|copyfileobj|copytree|move|rmtree|copymode|copystat|make_archive")
# Of libraries: what they are given to write into is a file that is open, or a buffer, and never a path.
OF_LIBRARIES = re.compile("savez|savez_compressed|savetxt|tofile|imwrite|imsave|save|dump|to_csv")
NAMED = re.compile(r"path|folder|place|name|dir|/")
OPENED = re.compile(r"\b(buffer|file|output|target)\b")
LONGEST = 480


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def calls_in(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]


@pytest.fixture(autouse=True, scope="module")
def _let_go() -> Iterator[None]:
    """A training looks at every object of its process: half a million nodes would be dear to those that follow."""
    yield
    parsed.cache_clear()
    calls_in.cache_clear()


def test_there_are_files_to_look_at() -> None:
    assert len(SOURCES) > 100


def test_every_file_says_what_it_is_for() -> None:
    assert [name_of(path) for path in SOURCES if not ast.get_docstring(parsed(path))] == [], "a docstring is missing"


def test_no_file_grows_beyond_reading() -> None:
    assert [name_of(path) for path in SOURCES if len(path.read_text("utf-8").splitlines()) > LONGEST] == []


def test_what_the_types_are_told_to_overlook_has_its_reason() -> None:
    lines = [(name_of(path), line) for path in SOURCES for line in path.read_text("utf-8").splitlines()]
    told = [(path, line) for path, line in lines if "# type: ignore" in line]
    assert told and [each for each in told if not re.search(r"# type: ignore\[[\w, -]+\]  # \w", each[1])] == []


def changes_the_disk(call: ast.Call) -> str:
    """The call by its name where it changes the disk; "" for any other."""
    given = [ast.unparse(each) for each in call.args]
    words = " ".join([*given, *(ast.unparse(each.value) for each in call.keywords)])
    writes = any(re.fullmatch(r"'[rbt]*[wax+][wax+bt]*'", word) for word in [*given[:2], *words.split()])
    match call.func:
        case ast.Name(id="open") if writes:
            return "open"
        case ast.Name(id="copyfile" | "copytree" | "rmtree" as name):
            return name
        case ast.Attribute(value=ast.Name(id="os"), attr=name) if OF_OS.fullmatch(name):
            return f"os.{name}"
        case ast.Attribute(value=ast.Name(id="os"), attr="open") if re.search("O_(CREAT|WRONLY|TRUNC|APPEND)", words):
            return "os.open"
        case ast.Attribute(value=ast.Name(id="shutil"), attr=name) if OF_SHUTIL.fullmatch(name):
            return f"shutil.{name}"
        case ast.Attribute(attr="ZipFile") if writes and not OPENED.search(given[0]):
            return ".ZipFile"
        case ast.Attribute(value=owner) if ast.unparse(owner).endswith(("disk", "Disk()", "archive")):
            return ""
        case ast.Attribute(attr=name) if OF_PATHS.fullmatch(name) or (name == "open" and writes):
            return f".{name}"
        case ast.Attribute(attr="replace") if len(call.args) == 1 and not call.keywords:  # of text it has two
            return ".replace"
        case ast.Attribute(attr="savefig") if given and not OPENED.search(given[0]):
            return ".savefig"
        case ast.Attribute(attr=name) if OF_LIBRARIES.fullmatch(name) and given and NAMED.search(given[0]):
            return f".{name}"
    return ""


def test_only_one_file_changes_the_disk() -> None:
    others = [path for path in SOURCES if path != STORAGE / "files.py"]
    found = {(path, call.lineno, changes_the_disk(call)) for path in others for call in calls_in(path)}
    changing = {(path, line, way) for path, line, way in found if way and way not in MAY_CHANGE.get(path, ())}
    assert sorted(f"{name_of(path)}, line {line}: {way}()" for path, line, way in changing) == []


WAYS = """
path.write_text(x); path.replace(target); path.rename(target); path.mkdir(); path.touch(); path.unlink(); path.chmod(1)
open(path, "w"); open(path, mode="ab"); path.open("w"); path.open("rb+"); path.open(mode="x"); os.open(path, os.O_CREAT)
os.replace(a, b); os.makedirs(a); os.utime(a); shutil.copyfile(a, b); shutil.rmtree(a); copyfile(a, b)
figure.savefig(x); figure.savefig(path); np.savez(path, a=a); np.save(folder / "x", a); picture.save(path)
zipfile.ZipFile(path, "w"); json_lines.open("a", encoding="utf-8"); cv2.imwrite(name, a); a.tofile(path)
"""
NO_WAYS = """
text.replace("a", "b"); moment.replace(year=1); replace(value, a=1); path.open("rb"); open(path); path.open()
os.open(path, os.O_RDONLY | os.O_NONBLOCK); figure.savefig(buffer); np.savez(buffer, a=a); run.save()
self._disk.rename(a, b); Disk().remove(path); shutil.disk_usage(path); shutil.which("git")
picture.save(buffer, format="PNG"); zipfile.ZipFile(file, "w"); archive.open(name, "w")
"""


def test_each_way_to_change_the_disk_is_known() -> None:
    for text, is_a_way in ((WAYS, True), (NO_WAYS, False)):
        for node in ast.parse(text).body:
            assert isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            assert bool(changes_the_disk(node.value)) == is_a_way, ast.unparse(node)


def imported_by(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["unbroken", "unbroken.cli", "mapsage.recipes", "mapsage.config"])
def test_importing_a_door_loads_no_torch(module: str) -> None:
    assert not {"torch", "numpy", "cv2", "matplotlib"} & imported_by(module)


def test_importing_unbroken_costs_nothing() -> None:
    assert {name for name in imported_by("unbroken") if name.startswith("unbroken")} <= {"unbroken", "unbroken.version"}


READS = {"read_text", "read_bytes"}
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


def test_whatever_somebody_names_is_opened_in_one_way() -> None:
    calls = [(path, call) for path in SOURCES if path not in MAY_OPEN for call in calls_in(path) if opens_to_read(call)]
    assert [f"{name_of(path)}, line {call.lineno}: {ast.unparse(call)[:80]}" for path, call in calls] == []


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


# What other programs may import: what is handed on there needs no user here.
DOORS = {ROOT / "src" / "unbroken" / name / "__init__.py" for name in ("", "config", "train", "storage", "demo")}
USERS = [*SOURCES, *(path for name in ("examples", "docs", "benchmarks") for path in (ROOT / name).rglob("*.py"))]
BY_NAME = re.compile("__|.*(_options|_command|_usual)$")  # Python's own; unbroken.cli.tree asks for those of a command


def read_in(node: ast.AST) -> Counter[str]:
    """Names and attributes that are read, and the words of texts that may be addresses."""
    found: Counter[str] = Counter()
    for each in ast.walk(node):
        match each:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                found[name] += 1
            case ast.Constant(value=str(text)) if re.fullmatch(r"[\w.]+:\w+", text):
                found[text.partition(":")[2]] += 1
    return found


def defined_in(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Functions, classes and constants of a module, and methods where no class of a library could call them."""
    ours = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} | {"NamedTuple", "Protocol"}
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name, keywords=[]):  # else it lists itself
                yield name, node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} <= ours:
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            yield from ((each.name, each) for each in methods if not each.decorator_list)


def unused_in(trees: dict[Path, ast.Module], library: Path) -> list[str]:
    """What files of the library define and none of all files uses, but where it is defined, or only handed on."""
    by_file = {path: read_in(tree) for path, tree in trees.items()}
    everywhere = sum(by_file.values(), Counter[str]())
    of_modules = {each.attr for tree in trees.values() for each in ast.walk(tree) if isinstance(each, ast.Attribute)}
    imported = {
        (node.module, alias.name)
        for path, tree in trees.items()
        if path.name != "__init__.py" or path in DOORS
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = []
    for path in trees:
        module = ".".join(path.with_suffix("").relative_to(library.parent).parts) if library in path.parents else ""
        for name, node in defined_in(trees[path]) if module else ():
            elsewhere = everywhere[name] - by_file[path][name]
            is_imported = {(module, name), (module.rpartition(".")[0], name)} & imported  # or from its room
            is_read = is_imported or name in of_modules if node in trees[path].body else elsewhere
            if not is_read and not BY_NAME.match(name) and by_file[path][name] == read_in(node)[name]:
                found.append(f"{path.relative_to(library)}:{node.lineno} {name}")
    return found


def test_every_name_is_used() -> None:
    library = ROOT / "src" / "unbroken"
    assert unused_in({path: parsed(path) for path in USERS}, library) == []


def test_a_name_that_is_used_nowhere_is_found(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    texts = {
        library / "one.py": "A, B = 1, 2\nLEFT = 3\ndef f():\n    return f()\nclass C:\n    def g(self): return h()\n"
        "def h(): pass\n",
        library / "two.py": "from lib.one import C\nC\n",
        library / "__init__.py": "from lib.one import f\n__all__ = ['f']\n",
    }
    trees = {path: ast.parse(text) for path, text in texts.items()}
    assert unused_in(trees, library) == ["one.py:2 LEFT", "one.py:3 f", "one.py:6 g"]


def test_nothing_private_of_another_file_is_imported() -> None:
    nodes = [(path, node) for path in SOURCES for node in ast.walk(parsed(path)) if isinstance(node, ast.ImportFrom)]
    ours = [each for each in nodes if (each[1].module or "").partition(".")[0] in ("unbroken", "mapsage", "focalsst")]
    names = [(name_of(path), f"{node.module}.{alias.name}") for path, node in ours for alias in node.names]
    assert names and [each for each in names if re.search(r"\._(?!_)", each[1])] == []


def test_the_core_names_no_application() -> None:
    library = ROOT / "src" / "unbroken"
    texts = {path: path.read_text("utf-8") for path in library.rglob("*") if path.suffix in (".py", ".js", ".css")}
    assert len(texts) > 100
    named = re.compile("aerial|sonar|mapsage|focal_?sst", re.IGNORECASE)
    assert [name_of(path) for path, text in texts.items() if named.search(text)] == []


# What a room may touch besides memory, and how that is seen in its own files.
SYSTEM = {"torch": "torch", "numpy": "torch", "subprocess": "processes", "multiprocessing": "processes"}
OF_DISKS = re.compile("create|open_append|rename|remove|remove_folder|move|make_folder|link|sync|sync_folder")
DURABLE = re.compile("write_json|write_whole|durable_write|durable_folder|point_to")
ROOMS = [path.parent for path in SOURCES if path.name == "__init__.py"]


def touched(node: ast.AST) -> Iterator[str]:
    """What one statement or call touches."""
    match node:
        case ast.Import(names=names):
            yield from (SYSTEM[top] for each in names if (top := each.name.partition(".")[0]) in SYSTEM)
        case ast.ImportFrom(module=str(module)) if (top := module.partition(".")[0]) in SYSTEM:
            yield SYSTEM[top]
        case ast.Call(func=ast.Name(id="print")) | ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr"):
            yield "terminal"
        case ast.Attribute(value=ast.Name(id="os"), attr="environ"):
            yield "environment"
        case ast.Attribute(value=ast.Name(id="os"), attr="kill" | "fork" | "killpg"):
            yield "processes"
        case ast.Call(func=ast.Attribute(value=owner, attr=name)) if OF_DISKS.fullmatch(name):
            yield from ["files"] if ast.unparse(owner).endswith(("disk", "Disk()")) else []
        case ast.Call(func=ast.Name(id=name)) if DURABLE.fullmatch(name):
            yield "files"


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_each_room_opens_with_its_words_and_what_it_may_touch(room: Path) -> None:
    """Half a page: its nouns, then `Touches files (which), terminal.`, which is true of its own files."""
    page = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
    *words, last = page.split("\n\n")
    assert len(page.splitlines()) >= 6 and words, "a room begins with half a page that defines its words"
    assert last.startswith("Touches ") and last.endswith("."), "the last paragraph says what the room touches"
    said = re.sub(r"\([^)]*\)", "", " ".join(last.split()).removeprefix("Touches ")).partition(";")[0]
    trees = [parsed(path) for path in room.glob("*.py")]
    found = {what for tree in trees for node in ast.walk(tree) for what in touched(node)}
    assert found == set(re.findall("torch|files|terminal|environment|processes", said)), last
    assert found or "nothing" in said
    named = set(re.findall(r"`(\w+\.py)`", page))
    assert named <= {path.name for path in SOURCES}, "a file that is named is not there"


def test_no_two_classes_of_the_core_have_one_name() -> None:
    """Whoever reads a name in one room must not think of what another room calls so."""
    places: dict[str, list[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: found for name, found in places.items() if len(found) > 1}
