"""What is said of how to go on is a command that does the same again, or words that say what to do."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes import environment, python, run_command
from unbroken.errors import UsageError
from unbroken.launch import Environment
from unbroken.launch.host import Processes, processes_said, started_together
from unbroken.launch.rerun import Rerun, Started, again_in_words, command_of, rerun_of

PROGRAM = """\
import json, sys
from unbroken.launch.rerun import rerun_of, this_process
again = rerun_of(this_process())
print(json.dumps({"command": again.command, "words": again.words, "arguments": sys.argv[1:], "name": __name__}))
"""
HARD = ["two words", "数据 集", "it's", 'a"b', "$HOME", "*", "a;b", "--lr=1e-3", ""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "my_package" / "inner"
    package.mkdir(parents=True)
    for path in (tmp_path / "train.py", tmp_path / "训练 1.py", package / "train.py"):
        path.write_text(PROGRAM, encoding="utf-8")
    return tmp_path


WAYS = [
    ["train.py", *HARD],
    ["./训练 1.py", "--数据", "值"],
    ["-u", "-X", "utf8", "-W", "ignore", "train.py", "-c", "configs/a.py"],
    ["-m", "my_package.inner.train", *HARD],
    ["-Wignore", "-um", "my_package.inner.train", "-m", "x"],
]


def said_by(command: Sequence[str], folder: Path, **how: object) -> dict[str, object]:
    done = run_command(command, cwd=folder, fresh=True, check=True, **how)
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", WAYS, ids=[" ".join(way[:3]) for way in WAYS])
def test_the_command_that_is_named_starts_the_same_program_again(folder: Path, way: list[str]) -> None:
    first = said_by(python(*way), folder)
    assert first["words"] == ""
    assert said_by(["sh", "-c", str(first["command"])], folder) == first


def test_what_launchers_start_is_named_with_the_launcher(folder: Path) -> None:
    """`timeout` and a script called like a launcher stay above the program, as torchrun, uv and conda do."""
    launcher = folder / "torchrun"
    launcher.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[2:]])\n"
    )
    launcher.chmod(0o755)
    found = said_by([str(launcher), "--nproc_per_node=1", "train.py", "a b"], folder, env=environment(WORLD_SIZE="1"))
    assert found["command"] == f"{launcher} --nproc_per_node=1 train.py 'a b'"
    assert said_by(["sh", "-c", str(found["command"])], folder) == found
    if shutil.which("timeout"):
        found = said_by(["timeout", "60", *python("-u", "train.py")], folder)
        assert found["command"] == f"timeout 60 {sys.executable} -u train.py"


def test_an_installed_command_is_named_as_it_is_typed(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("unbroken")
    words = [sys.executable, str(command), "train", "mapsage", "a b.py"]
    started = Started(argv=(str(command), "train", "mapsage", "a b.py"), words=words)
    assert command_of(started)[1:] == ["train", "mapsage", "a b.py"]
    assert command_of(started)[0] in ("unbroken", str(command))


@pytest.mark.parametrize("words", [[], ["-u", "-", "a"]], ids=["alone", "with arguments"])
def test_a_program_on_standard_input_is_given_there_again(folder: Path, words: list[str]) -> None:
    with (folder / "train.py").open() as program:
        found = said_by(python(*words), folder, stdin=program)
    assert found["command"] == "" and "the same program on its standard input again" in str(found["words"])


def started(*words: str, argv: Sequence[str] = ("",), **how: object) -> Rerun:
    return rerun_of(Started(argv=tuple(argv), words=words, **how))  # type: ignore[arg-type]


def test_a_program_behind_c_is_written_out_only_where_it_is_short() -> None:
    assert started("python3", "-c", "import a; a.main()", "x y").command == "python3 -c 'import a; a.main()' 'x y'"
    for program in ("import a\na.main()", f"import a; a.main({'1, ' * 100})"):
        found = started("python3", "-c", program)
        assert found == Rerun(words="give python3 -c the same program again")


def test_where_somebody_types_no_command_is_named() -> None:
    kernel = ("python", "-m", "ipykernel_launcher", "-f", "/tmp/x.json")
    assert started(*kernel, shell="notebook") == Rerun(words="run the cells of this notebook again, in order")
    assert started("python3", shell="python").words == "enter the same lines in Python again"
    for words in (("/usr/bin/python3", "/usr/bin/ipython"), ("python3", "-m", "IPython")):
        assert started(*words, shell="ipython") == Rerun(words="enter the same lines in IPython again")
    found = started(*kernel, argv=("train.py", "a b"), shell="notebook", script="train.py")
    assert found.command == "%run train.py 'a b'"


def test_where_only_the_environment_tells_of_a_launcher_the_words_name_it() -> None:
    found = started("python", "train.py", said="torchrun")
    assert found.words == "start it with torchrun again, as before: python train.py"
    found = started("python", "train.py", said="Slurm")
    assert found.words == "submit the same job of Slurm again, or run: python train.py"
    above = (
        ("/opt/python", "-m", "torch.distributed.run", "train.py"),
        ("uv", "run", "torchrun", "train.py"),
        ("bash",),
    )
    assert started("python", "-u", "train.py", said="torchrun", above=above).command == "uv run torchrun train.py"
    assert started("python", "train.py", above=(("vim", "train.py"),)).command == "python train.py"
    between = (("/bin/bash", "/tmp/tmp1x"), ("/opt/conda/bin/conda", "run", "-n", "e", "python", "train.py"), ("zsh",))
    assert started("python", "train.py", above=between).command == "/opt/conda/bin/conda run -n e python train.py"


def test_what_is_recorded_reads_as_a_sentence() -> None:
    assert again_in_words(Environment(), "python a.py") == "run: python a.py"
    assert again_in_words(Environment(again="run the cells of this notebook again, in order"), "") != ""
    assert again_in_words(Environment(), "") == "run: the same command again"


def test_a_launcher_says_which_process_of_how_many_this_is_or_what_it_leaves_out_is_named() -> None:
    for said in ({}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "two"}):
        assert processes_said(said) == Processes()
    whole = {"WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    assert processes_said(whole) == Processes(rank=3, size=4)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        with pytest.raises(UsageError, match=rf"WORLD_SIZE=4: .*no {name}.* torchrun --nproc-per-node 4"):
            processes_said({key: value for key, value in whole.items() if key != name})
    with pytest.raises(UsageError, match=r"RANK=4"):
        processes_said({**whole, "RANK": "4"})


def test_what_starts_several_processes_without_a_rank_is_told_apart() -> None:
    assert started_together({"SLURM_STEP_NUM_TASKS": "2"}) == "SLURM_STEP_NUM_TASKS=2"
    assert started_together({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}) == ""
