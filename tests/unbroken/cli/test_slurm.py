"""`unbroken slurm`: the batch script, what Slurm and a shell make of it, what is refused; tests/twin trains by it."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.twin.slurm import Accident, Cluster
from tests.unbroken.cli.typing_commands import Type, reads_well

SHOWS = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('RANK'), os.environ.get('WORLD_SIZE')]))"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path / "cluster")
    yield found
    found.close()


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("4h", "0-04:00:00"),
        ("1-00:00:00", "1-00:00:00"),
        ("2d", "2-00:00:00"),
        ("90m", "0-01:30:00"),
        ("36:00:01.5", "1-12:00:02"),
    ],
)
def test_a_limit_is_read_as_everywhere_and_written_as_slurm_reads_it(type_: Type, typed: str, written: str) -> None:
    answer = type_("slurm", "--time", typed, "--", "python", "train.py")
    assert answer.code == 0 and answer.out.startswith("#!/bin/bash\n#SBATCH "), answer
    assert f"--time={written}" in directives(answer.out)


def test_what_is_asked_of_slurm_stands_in_the_script(type_: Type) -> None:
    asked = ["--nodes", 2, "--processes", 4, "--gpus", "a100:4", "--partition", "long one", "--signal=5m"]
    further = [
        "--sbatch=--account=lab",
        "--sbatch",
        "#SBATCH --mem 64G",
        "--sbatch=-J my run",
        "--sbatch=--gpus=8",
        "--sbatch=--comment='a --b'",
        "--sbatch=--exclusive",
    ]
    answer = type_("slurm", "--time=4h", *asked, *further, "--", "python", "train.py", "--nodes", 7)
    assert directives(answer.out) == [
        "--time=0-04:00:00",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=a100:4",
        '--partition="long one"',
        "--signal=TERM@300",
        "--requeue",
        "--open-mode=append",
        "--account=lab",
        "--mem=64G",
        '-J "my run"',
        "--gpus=8",
        '--comment="a --b"',
        "--exclusive",
    ]
    assert "python train.py --nodes 7" in answer.out


NAMES = [
    "my train.py",
    "it's",
    '"quoted"',
    "$HOME",
    "`id`",
    "a\\ b",
    "#SBATCH --nodes=9",
    "*",
    "",
    "训练.py",
    "-x",
    "!",
]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_command_arrives_word_for_word(type_: Type, cluster: Cluster, tmp_path: Path, processes: int) -> None:
    answer = type_("slurm", "--time=4h", "--processes", processes, "--", sys.executable, "-S", "-c", SHOWS, *NAMES)
    job = cluster.submit(answer.out, cwd=tmp_path)
    assert cluster.run(job) == 0 and not job.requeued
    ranks = [None] if processes == 1 else ["0", "1"]
    said = sorted(map(json.loads, job.output.read_text().splitlines()), key=str)
    assert said == [[NAMES, rank, rank and "2"] for rank in ranks]


@pytest.mark.parametrize("value", ["my run", "a \"b\" 'c'", "back\\slash", "a\\ b", "x # y", "训练", "tail\\"])
def test_a_value_of_sbatch_s_is_what_its_reader_of_lines_reads(
    type_: Type, cluster: Cluster, tmp_path: Path, value: str
) -> None:
    answer = type_("slurm", "--time=4h", f"--sbatch=--comment={value}", "--partition", value, "--", "true")
    job = cluster.submit(answer.out, cwd=tmp_path)
    assert (job.options["--comment"], job.options["--partition"]) == (value, value)


def shell(*codes: int) -> list[str]:
    """A command whose processes end with these exit codes, by rank; 1009 for SIGKILL."""
    return ["sh", "-c", 'shift "${RANK:-0}"; [ "$1" -lt 1000 ] || kill -9 $$; exit "$1"', "sh", *map(str, codes)]


@pytest.mark.parametrize(
    ("codes", "code", "requeued"),
    [
        ([0], 0, False),
        ([75], 75, True),
        ([1], 1, False),
        ([13], 13, False),
        ([127], 127, False),
        ([1009], 137, False),
        ([0, 0], 0, False),
        ([75, 75], 75, True),
        ([0, 75], 75, True),
        ([75, 1], 1, False),
        ([12, 75], 12, False),
        ([74, 75], 74, False),
        ([13, 13], 13, False),
        ([75, 1009], 137, False),
        ([75, 76], 76, False),
        ([130, 75], 130, False),
    ],
)
def test_a_job_goes_on_where_all_stopped_and_ends_with_the_exit_code_of_one_that_failed(
    type_: Type, cluster: Cluster, tmp_path: Path, codes: list[int], code: int, requeued: bool
) -> None:
    answer = type_("slurm", "--time=4h", "--nodes", len(codes), "--", *shell(*codes))
    job = cluster.submit(answer.out, cwd=tmp_path)
    assert (cluster.run(job), job.requeued) == (code, requeued), job.output.read_text()


WAITS = 'trap "exit 75" TERM; : > "began.$SLURM_PROCID"; while :; do sleep 0.02; done'


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(
    ("accident", "code", "requeued"),
    [("warning", 75, True), ("node failure", -9, True), ("limit", -15, False), ("cancelled", -15, False)],
)
def test_a_warned_job_goes_on_and_one_that_is_cancelled_or_at_its_limit_does_not(
    type_: Type, cluster: Cluster, tmp_path: Path, nodes: int, accident: Accident, code: int, requeued: bool
) -> None:
    job = cluster.submit(type_("slurm", "--time=4h", "--nodes", nodes, "--", "sh", "-c", WAITS).out, cwd=tmp_path)
    assert cluster.run(job, accident, once=lambda: len(list(tmp_path.glob("began.*"))) == nodes) == code
    assert (job.requeued, job.restarts) == (requeued, int(requeued))


def test_what_every_session_says_stands_in_one_file(type_: Type, cluster: Cluster, tmp_path: Path) -> None:
    command = ["sh", "-c", 'echo "session ${SLURM_RESTART_COUNT:-0}"; [ "$SLURM_RESTART_COUNT" = 2 ] || exit 75']
    job = cluster.submit(type_("slurm", "--time=4h", "--", *command).out, cwd=tmp_path)
    assert [cluster.run(job) for _ in range(3)] == [75, 75, 0]
    assert job.output.read_text() == "session 0\nsession 1\nsession 2\n"


def test_a_script_is_submitted_where_that_is_asked(
    type_: Type, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    answer = type_("slurm", "--time=4h", "--submit", "--", "python", "训练 1.py")
    assert (answer.code, answer.out, answer.err) == (0, "Submitted batch job 41\n", "")
    assert "srun python '训练 1.py'\n" in cluster.jobs[0].script


def test_what_sbatch_complains_of_is_said(type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    answer = type_("slurm", "--time=4h", "--submit", "--", "true")
    assert answer.code == 10 and "invalid partition" in answer.err and reads_well(answer)


def test_without_sbatch_nothing_is_submitted_and_it_is_said_where_it_could_be(
    type_: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = type_("slurm", "--time=4h", "--submit", "--", "true")
    assert answer.code == 2 and "sbatch" in answer.err and "login node" in answer.err and answer.out == ""


LIMIT = ["--time", "4h"]
MISTAKES: list[tuple[Sequence[object], str]] = [
    ([], "what to run is missing"),
    (LIMIT, "what to run is missing"),
    ([*LIMIT, "--", ""], "what to run is missing"),
    (["--", "true"], "--time is missing"),
    (["--time", "30", "--", "true"], "with its unit"),
    (["--time", "", "--", "true"], "--time is missing"),
    (["--time", "2m", "--", "true"], "no time is left to train in"),
    ([*LIMIT, "--signal", "4h", "--", "true"], "no time is left to train in"),
    ([*LIMIT, "--signal", "0", "--", "true"], "Slurm takes 1 s to 18 h"),
    (["--time", "9d", "--signal", "2d", "--", "true"], "Slurm takes 1 s to 18 h"),
    ([*LIMIT, "--nodes", "0", "--", "true"], "expected a whole number, 1 or more"),
    ([*LIMIT, "--nodes", "1-4", "--", "true"], "expected a whole number, 1 or more"),
    ([*LIMIT, "--processes", "two", "--", "true"], "expected a whole number, 1 or more"),
    ([*LIMIT, "--gpus", "0", "--", "true"], "this is no number of GPUs"),
    ([*LIMIT, "--gpus", "4\n#SBATCH --nodes=9", "--", "true"], "this is no number of GPUs"),
    ([*LIMIT, "--partition", "gpu\n#SBATCH --nodes=9", "--", "true"], "that no line of a script can hold"),
    ([*LIMIT, "--sbatch", "--mem=1G\n#SBATCH --nodes=9", "--", "true"], "that no line of a script can hold"),
    ([*LIMIT, "--sbatch", "--mem=1G\r", "--", "true"], "that no line of a script can hold"),
    ([*LIMIT, "--", "python", "a\nscancel"], "that no line of a script can hold"),
    ([*LIMIT, "--", "python", os.fsdecode(b"\xff.py")], "that no line of a script can hold"),
    ([*LIMIT, "--sbatch", "account=lab", "--", "true"], "this is no option of sbatch"),
    ([*LIMIT, "--sbatch", "", "--", "true"], "this is no option of sbatch"),
    ([*LIMIT, "--sbatch", "--mem=1G --account=lab", "--", "true"], "several options"),
    (
        [*LIMIT, "--sbatch", "--signal=B:USR1@60", "--", "true"],
        "the script says this already. Use unbroken slurm --sig",
    ),
    ([*LIMIT, "--sbatch", "-N 2", "--", "true"], "Use unbroken slurm --nodes"),
    ([*LIMIT, "--sbatch", "--no-requeue", "--", "true"], "Leave it out"),
    ([*LIMIT, "--sbatch", "--open-mode=truncate", "--", "true"], "Leave it out"),
    ([*LIMIT, "--sbatch", "--no-req", "--", "true"], "Leave it out"),
    ([*LIMIT, "--sbatch", "--sig=KILL", "--", "true"], "Use unbroken slurm --signal"),
    ([*LIMIT, "--", "torchrun", "--nproc-per-node", "2", "train.py"], "torchrun ends with 1 after a stop"),
    ([*LIMIT, "--", "uv", "run", "/opt/bin/accelerate", "launch", "train.py"], "accelerate ends with 1 after a stop"),
    ([*LIMIT, "--", "python", "-m", "torch.distributed.run", "train.py"], "torch.distributed.run ends with 1"),
    ([*LIMIT, "--", "python", "-m", "accelerate.commands.launch", "train.py"], "accelerate.commands.launch ends with"),
    ([*LIMIT, "--", "train.py", "--lr", "1"], "Type behind the options: -- python train.py --lr 1"),
    ([*LIMIT, "--", "train", "mapsage", "c.py"], "Type behind the options: -- unbroken train mapsage c.py"),
    ([*LIMIT, "--", "mapsage", "c.py"], "Type behind the options: -- unbroken train mapsage c.py"),
    ([*LIMIT, "--node", "2", "--", "true"], "Did you mean --nodes?"),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=lambda each: shlex.join(map(repr, each))[:60])
def test_what_cannot_become_a_job_is_refused_with_what_to_type(type_: Type, typed: Sequence[object], said: str) -> None:
    answer = type_("slurm", *typed)
    assert answer.code == 2 and answer.out == "" and said in answer.err and reads_well(answer), answer


def test_a_program_s_own_words_are_left_to_it(type_: Type) -> None:
    for command in (["python", "train.py", "--launcher", "torchrun"], ["python", "-m", "mine", "accelerate"]):
        assert type_("slurm", *LIMIT, "--", *command).code == 0
