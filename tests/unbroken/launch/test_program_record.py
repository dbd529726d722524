"""Which program a session ran is recorded, and what is not the same any more is said when the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import python, run_command
from tests.twin.killing import run_to_end
from unbroken.journal import read_events
from unbroken.launch.program import LoadedProgram
from unbroken.launch.rerun import Started, this_process
from unbroken.run.history import Program, SessionProgram, program_changes, programs_of

TRAIN = """\
import sys
import torch
from unbroken.train import open_run
import parts.network

with open_run(sys.argv[1], tag="t", save_every=2) as run:
    model = parts.network.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.track(model=model, optimizer=optimizer)
    for batch in run.batches([torch.ones(2)] * 8, batch_size=2, epochs=2):
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=loss)
        if run.step == 1:
            import parts.later
        if run.step in (3, 5):
            run.stop("the test")
"""
NETWORK = "import torch\ndef make(): return torch.nn.Linear(2, 1)\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A script with modules of its own."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "parts/__init__.py").write_text("")
    (tmp_path / "parts/network.py").write_text(NETWORK)
    (tmp_path / "parts/later.py").write_text("")
    (tmp_path / "parts/unused.py").write_text("")
    return tmp_path


def train(project: Path) -> str:
    return run_to_end(python(project / "train.py", project / "out")).output


def programs(project: Path) -> list[Program]:
    return list(programs_of(read_events(project / "out/t/unbroken/journal.jsonl")).values())


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_files_that_changed_since_the_saved_state_are_named_and_nothing_is_refused(project: Path) -> None:
    assert "changed since" not in train(project)
    (project / "parts/network.py").write_text(f"{NETWORK}# dropout\n")
    (project / "parts/unused.py").write_text("# nobody loads it\n")
    second = train(project)
    first, after = programs(project)
    name = read_events(project / "out/t/unbroken/journal.jsonl")[0]["session"]
    assert f"the program changed since session {name}: parts/network.py\n" in second
    assert "stopped by the test after step 5" in second
    assert set(first.files) == {"train.py", "parts/__init__.py", "parts/network.py", "parts/later.py"}
    assert first.main == "train.py" and {"python", "torch", "numpy", "unbroken"} <= set(first.versions)
    assert {name for name in after.files if first.files[name] != after.files[name]} == {"parts/network.py"}
    third = train(project)
    assert "changed since" not in third and "finished" in third
    lines = (project / "out/t/unbroken/journal.jsonl").read_text()
    assert '"program":{"as_in":"' in lines and "dropout" not in lines  # recorded once, and no content of it


def test_a_commit_is_recorded_with_whether_files_differ_from_it(project: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", "train.py", "parts")
    git(project, "commit", "-qm", "one")
    train(project)
    assert (programs(project)[-1].commit, programs(project)[-1].dirty) == (git(project, "rev-parse", "HEAD"), False)
    before = git(project, "rev-parse", "--short=7", "HEAD")
    (project / "train.py").write_text(f"{TRAIN}\n")
    git(project, "commit", "-qam", "two")
    (project / "parts/unused.py").write_text("# edited\n")
    second = train(project)
    assert f": train.py, git commit {before} -> {git(project, 'rev-parse', '--short=7', 'HEAD')}\n" in second
    assert programs(project)[-1].dirty is True
    (shown,) = [line for line in show(project).splitlines() if line.startswith("program:")]
    assert "train.py and 2 more files, git commit" in shown and "and changes, python 3." in shown


def show(project: Path, *words: str) -> str:
    return run_to_end(python("-m", "unbroken", "show", project / "out/t", *words)).output


def test_show_lists_the_program_and_where_it_changed(project: Path) -> None:
    train(project)
    (project / "train.py").write_text(f"{TRAIN}\n")
    train(project)
    last = read_events(project / "out/t/unbroken/journal.jsonl")[-1]["session"]
    assert f"program changed in session {last}: train.py\n" in show(project)
    told = json.loads(show(project, "--json"))["programs"]
    assert [sorted(item["files"]) for item in told] == [sorted(program.files) for program in programs(project)]
    assert [item["changed"] for item in told] == [[], ["train.py"]] and told[-1]["session"] == last


def test_compare_lists_what_differs_between_the_programs_of_runs(project: Path) -> None:
    train(project)
    shutil.move(project / "out/t", project / "first")
    (project / "parts/network.py").write_text(f"{NETWORK}# dropout\n")
    train(project)
    words = python("-m", "unbroken", "compare", project / "first", project / "out/t")
    (row,) = [line for line in run_to_end(words).output.splitlines() if "parts/network.py" in line]
    digests = [program.files["parts/network.py"] for program in programs(project)]
    assert digests[0] in row
    (difference,) = json.loads(run_to_end([*words, "--json"]).output)["program_differences"]
    assert difference["key"] == "parts/network.py" and difference["values"][1] == digests[0]
    assert "程序" in run_to_end([*words, "--lang", "zh"]).output


# -- what is no ordinary script ---------------------------------------------------------------------------------------

LOOK = """\
import json
from unbroken.launch.program import LoadedProgram
from unbroken.launch.rerun import this_process
print(json.dumps(LoadedProgram(this_process())().as_plain()))
"""


def looked(command: list[str], folder: Path, **extra: Any) -> dict[str, Any]:
    done = run_command(command, cwd=folder, check=True, **extra)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["versions"]["python"] and done.stderr == ""
    return found


def as_text(folder: Path) -> dict[str, Any]:
    return looked(python("-c", f"import near\n{LOOK}"), folder)


def as_module(folder: Path) -> dict[str, Any]:
    (folder / "package/inner").mkdir(parents=True)
    (folder / "package/inner/go.py").write_text(f"import near\n{LOOK}")
    return looked(python("-m", "package.inner.go"), folder)


def on_standard_input(folder: Path) -> dict[str, Any]:
    (folder / "typed").write_text(f"import near\n{LOOK}")
    with (folder / "typed").open() as text:
        return looked(python("-"), folder, stdin=text)


def as_zip(folder: Path) -> dict[str, Any]:
    with zipfile.ZipFile(folder / "all.pyz", "w") as archive:
        archive.writestr("__main__.py", f"import within\n{LOOK}")
        archive.writestr("within.py", "")
    return looked(python(folder / "all.pyz"), folder)


def deleted(folder: Path) -> dict[str, Any]:
    (folder / "gone.py").write_text(f"import os, near\nos.unlink(__file__)\n{LOOK}")
    return looked(python(folder / "gone.py"), folder)


def through_a_link(folder: Path) -> dict[str, Any]:
    (folder / "real.py").write_text(f"import near\n{LOOK}")
    (folder / "bin").mkdir()
    (folder / "bin/link.py").symlink_to(folder / "real.py")
    return looked(python(folder / "bin/link.py"), folder / "bin")


@pytest.mark.parametrize(
    ("start", "main", "files"),
    [
        (as_text, "", {"the text after -c", "near.py"}),
        (as_module, "package/inner/go.py", {"package/inner/go.py", "near.py"}),
        (on_standard_input, "", {"near.py"}),
        (as_zip, "all.pyz", {"all.pyz"}),
        (deleted, "gone.py", {"gone.py", "near.py"}),
        (through_a_link, "real.py", {"real.py", "near.py"}),
    ],
)
def test_however_a_program_was_started_what_can_be_known_of_it_is(
    tmp_path: Path, start: Callable[[Path], dict[str, Any]], main: str, files: set[str]
) -> None:
    (tmp_path / "near.py").write_text("")
    found = start(tmp_path)
    assert found["main"] == main and set(found["files"]) == files
    unread = {name for name, digest in found["files"].items() if not digest}
    assert unread == ({"gone.py"} if start is deleted else set())


BESIDE = {
    "a file that nobody may read": lambda path: path.chmod(0),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a file of gigabytes": lambda path: os.truncate(path, 8 << 30),
    "nothing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("what", BESIDE)
def test_a_module_whose_file_cannot_be_read_any_more_is_recorded_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "a file that nobody may read" and os.geteuid() == 0:
        pytest.skip("this user may read everything")
    path = tmp_path / f"strange_{[*BESIDE].index(what)}.py"
    path.write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    __import__(path.stem)
    BESIDE[what](path)
    typed_in = Started(argv=("",), words=("python",), shell="python")
    found = LoadedProgram(typed_in)()
    del sys.modules[path.stem]
    assert found.files[path.name] == ""


def test_modules_that_are_none_or_are_loaded_when_first_used_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    spec = importlib.util.find_spec("this")
    assert spec is not None and spec.loader is not None
    lazy = importlib.util.module_from_spec(spec)
    importlib.util.LazyLoader(spec.loader).exec_module(lazy)  # what touches it would print the Zen
    monkeypatch.setitem(sys.modules, "lazy_of_a_test", lazy)
    monkeypatch.setitem(sys.modules, "none_of_a_test", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "object_of_a_test", object())  # type: ignore[arg-type]
    assert LoadedProgram(this_process())().versions["python"]
    assert type(lazy).__name__ == "_LazyModule"


@pytest.mark.parametrize("there", ["#!/bin/sh\nexit 128\n", "#!/bin/sh\nsleep 60\n", "#!/bin/sh\necho noise\n", ""])
def test_a_git_that_fails_or_hangs_or_is_not_there_costs_no_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    (tmp_path / "bin").mkdir()
    if there:
        (tmp_path / "bin/git").write_text(there)
        (tmp_path / "bin/git").chmod(0o755)
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin" if there else str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    found = LoadedProgram(Started(argv=("",), words=("python",), shell="python"))()
    assert (found.commit, found.dirty) == ("", None)


def test_a_record_that_is_no_program_counts_for_nothing() -> None:
    told: list[Any] = [None, {"files": []}, {"files": {"a": 1}}, {"as_in": "nobody"}, {"versions": {"torch": []}}]
    events = [{"event": "session", "session": str(place), "program": item} for place, item in enumerate(told)]
    assert [name for name, program in programs_of(events).items() if program != Program()] == []


def test_of_two_programs_only_what_both_tell_is_compared_but_a_new_file_is_news() -> None:
    before = Program(files={"a.py": "1", "unread.py": "", "gone.py": "5"}, versions={"torch": "2.12"}, commit="")
    now = Program(
        files={"a.py": "2", "unread.py": "3", "new.py": "4"}, versions={"torch": "2.13", "scipy": "1"}, commit="abc"
    )
    assert program_changes(before, now) == ["a.py", "new.py (new)", "torch 2.12 -> 2.13"]
    many = {f"{number}.py": "1" for number in range(9)}
    assert program_changes(Program(files=many), Program(files=dict.fromkeys(many, "2")))[-1] == "3 more"
    assert SessionProgram(earlier={"s": now}).recorded(now) == {"as_in": "s"}
