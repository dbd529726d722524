"""What docs/prove.md shows of proofs is what they say: its commands are run, with the script that it shows."""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from tests.processes import Popen, environment, python
from unbroken.prove import Settings, prove

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/prove.md").read_text("utf-8")
SHOWN = dict(re.findall(r"^```\n\$ (unbroken prove .*)\n((?:.*\n)+?)```", PAGE, re.MULTILINE))
BY_HASH = "tried both with PYTHONHASHSEED=0: "  # new interpreters each time: proved in test_faults.py
# Of the values, and of the moment in a step that a kill came at.
VARIES = re.compile(r"\d+\.\d+(?:e-\d+)?|(?<=first at step )\d+|\d+(?= of \d+ (?:tensors|logged values))")


def words(lines):
    return [VARIES.sub("#", line) for line in lines if not line.startswith(BY_HASH)]


@pytest.mark.parametrize("command", SHOWN)
def test_a_proof_that_is_shown_says_just_that(command, tmp_path):
    seed, script = shlex.split(command.replace("unbroken prove --seed ", "").replace(" -- python", ""))
    folder = ROOT
    if not (ROOT / script).is_file():
        folder = tmp_path
        (folder / script).write_text(re.search(r"^```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)[1])
    settings = Settings(seed=int(seed), hash_seeds=False)
    proof = prove(python(script), settings, environment=environment(), start=partial(Popen, cwd=folder))
    assert words(proof.lines) == words(SHOWN[command].splitlines())
    assert proof.exact == (folder == ROOT)


def test_a_proof_that_holds_and_one_that_does_not_are_shown():
    assert [command.split()[-1] for command in SHOWN] == ["examples/plain_loop.py", "train.py"]
    assert PAGE.count("\n30 steps in peace are done") == len(SHOWN)  # none is shown without its command
