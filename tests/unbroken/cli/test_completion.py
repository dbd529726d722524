"""`unbroken completion`: what a shell offers behind `unbroken`, as a shell itself finds it; and the version."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unbroken.cli.typing_commands import Type
from unbroken import __version__
from unbroken.cli.tree import COMMANDS

TYPED = [
    (["unbroken", "a"], {"audit"}),
    (["unbroken", "prune", "--keep-"], {"--keep-last", "--keep-every", "--keep-best"}),
    (["unbroken", "train", "mapsage", "x.py", "--cfg"], {"--cfg-options"}),
    (["unbroken", "why", "focalsst", "--extra"], {"--extra_tag"}),
    (["unbroken", "why", "mapsage", "--pl"], {"--plot"}),
    (["unbroken", "train", "mapsa"], {"mapsage"}),
    (["unbroken", "completion", "z"], {"zsh"}),
    (["unbroken", "slurm", "--par"], {"--partition"}),
    (["unbroken", "show", "some"], {"some-file"}),
    (["unbroken", "pin", "run", "some"], {"some-file"}),
]


@pytest.mark.parametrize(
    ("words", "offered"), TYPED, ids=lambda each: " ".join(sorted(each) if isinstance(each, set) else each)
)
def test_bash_completes_commands_options_recipes_and_files(
    words: list[str], offered: set[str], type_: Type, tmp_path: Path
) -> None:
    (tmp_path / "some-file").touch()
    script = type_("completion", "bash").out
    asked = (
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _unbroken; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{asked}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert offered <= set(done.stdout.split()) and not done.stderr, done
    assert all(word.startswith(words[-1]) for word in done.stdout.split()), done


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_knows_every_command_and_reads_its_script(shell: str, type_: Type, tmp_path: Path) -> None:
    answer = type_("completion", shell)
    assert answer.code == 0 and not [name for name in COMMANDS if name not in answer.out]
    assert all(option in answer.out for option in ("keep-last", "cfg-options", "extra_tag"))
    if shutil.which(shell):
        (tmp_path / "script").write_text(answer.out)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_another_shell_is_answered_with_those_that_are_known(type_: Type) -> None:
    answer = type_("completion", "bsh")
    assert answer.code == 2 and "Did you mean bash?" in answer.err


def test_the_version_is_the_package_s(type_: Type) -> None:
    answer = type_("--version")
    assert (answer.code, answer.out, answer.err) == (0, f"unbroken {__version__}\n", "")
