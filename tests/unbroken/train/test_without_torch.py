"""Where torch is not installed, or broken, it is said what to install: for each way in which a script begins."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.processes import environment, python

BEGINNINGS = ["from unbroken import open_run", "from unbroken.train import open_run", "import unbroken.train"]


@pytest.mark.parametrize("line", BEGINNINGS)
@pytest.mark.parametrize(
    ("torch", "words"),
    [
        ('raise ModuleNotFoundError("No module named \'torch\'", name="torch")', "torch is not installed here"),
        ('raise ImportError("libcudart.so.12: cannot open shared object file")', "torch cannot be loaded"),
    ],
)
def test_a_script_without_torch_is_told_what_to_install(tmp_path: Path, line: str, torch: str, words: str) -> None:
    (tmp_path / "torch.py").write_text(f"{torch}\n")
    (tmp_path / "train.py").write_text(
        f"import unbroken\ntry:\n    {line}\nexcept ImportError as error:\n"
        "    print(type(error).__name__, error.exit_code, error)\n"
    )
    command, env = python("train.py"), environment()  # an interpreter of its own: this one has torch
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert said.startswith(f"NotInstalled 2 unbroken.train: {words}. Found ") and "pip install torch" in said, said


def test_the_package_itself_has_the_door_of_a_script() -> None:
    import unbroken
    import unbroken.train

    assert unbroken.open_run is unbroken.train.open_run  # type: ignore[attr-defined]  # it is loaded when it is asked for
