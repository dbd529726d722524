"""Each script of `examples` runs to its end without a word of what it forgot, and is proved: kills change no bit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.processes import Popen, environment, python, run_command
from unbroken.prove import Settings, prove

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "plain_loop")  # that has its own tests
LONGEST = 90


def why_not_compiled() -> str:
    """Why torch compiles nothing here, in its own words; nothing where it does."""
    try:
        torch.compile(lambda x: x + 1, backend="aot_eager")(torch.zeros(1))
    except Exception as error:  # noqa: BLE001 - a compiler fails in as many ways as there are machines
        return f"torch.compile does not work here: {type(error).__name__}: {error}"
    return ""


def command_of(script: str) -> list[str]:
    if script == "compiled" and (why := why_not_compiled()):
        pytest.skip(why)
    return python(EXAMPLES / f"{script}.py", *(["--backend", "aot_eager"] if script == "compiled" else []))


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_from_anywhere_and_forgets_nothing(script: str, tmp_path: Path) -> None:
    command = [*command_of(script), "--out", "runs"]
    done = run_command(command, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    assert f"finished: {steps_of(done.stdout)} steps" in done.stdout
    assert not re.findall(r"^(?:warning|note): .*", done.stdout, re.MULTILINE)
    again = run_command(command, cwd=tmp_path)
    assert again.returncode == 0 and "plan: FINISHED" in again.stdout


def steps_of(said: str) -> str:
    """The last step that the progress lines foresee."""
    return re.findall(r"^Iter\(train\) \[\d+/(\d+)\]", said, re.MULTILINE)[-1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_is_the_same_to_the_bit_when_it_is_killed(script: str) -> None:
    settings = Settings(steps=30, kills=2, seed=SCRIPTS.index(script), workers=(), hash_seeds=False)
    proof = prove(command_of(script), settings, environment=environment(), start=Popen)
    assert proof.exact, proof.lines


def test_the_page_of_the_examples_names_each_of_them_in_both_languages_and_each_is_short() -> None:
    page = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert page.count(f"({path.name})") == 2
        assert len(path.read_text("utf-8").splitlines()) < LONGEST
