"""What cannot be written where a command prints: a full or closed output, a terminal without the letters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.twin.killing import environment

FULL = Path("/dev/full")


def typed(shell: str, folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """A command line in a shell, where `$unbroken` is the command; its own exit code is what it prints last."""
    known = environment(unbroken=f"{sys.executable} -m unbroken", **extra)
    return subprocess.run(["bash", "-c", shell], cwd=folder, env=known, capture_output=True, text=True, check=False)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder whose name is not UTF-8, with a run's record in it, beside one in Chinese."""
    for name in ("训练", b"\xd1\xb5\xc1\xb7".decode("utf-8", "surrogateescape")):
        own = tmp_path / name / "unbroken"
        own.mkdir(parents=True)
        (own / "run.json").write_text('{"id": "a", "recipe": "r", "tag": "t", "created": "2026-01-01", "seed": 0}')
    return tmp_path


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", ["ls .", "ls . --json", "show 训练", "--help", "verify nothing --json"])
def test_a_full_disk_behind_the_output_is_one_line_and_a_code_of_the_family(runs: Path, words: str) -> None:
    done = typed(f"$unbroken {words} > /dev/full", runs)
    assert done.returncode in (2, 12), done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "No space left" in done.stderr


@pytest.mark.parametrize("words", ["ls .", "show 训练"])
def test_a_closed_output_is_no_fault(runs: Path, words: str) -> None:
    done = typed(f"$unbroken {words} >&-", runs)
    assert done.returncode == 0 and not done.stderr, done


@pytest.mark.parametrize("words", ["ls .", "ls . --json", "show 训练", "verify 训练", "--help", "ls --help", "log ."])
def test_who_has_read_enough_is_no_failure(runs: Path, words: str) -> None:
    done = typed(f"mkfifo gone; (exec 3<gone) & exec 4>gone; wait; $unbroken {words} >&4", runs)
    assert done.returncode == 0 and not done.stderr, done


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "utf-8"])
@pytest.mark.parametrize("words", ["ls .", "ls . --json", "show 训练", "log ."])
def test_names_that_an_output_has_no_letters_for_are_escaped(runs: Path, encoding: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unbroken", *words.split()],
        cwd=runs,
        env=environment(PYTHONIOENCODING=encoding, PYTHONUTF8="1"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done
    done.stdout.decode(encoding)
