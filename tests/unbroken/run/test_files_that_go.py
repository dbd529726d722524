"""Every look at a run is true while its training saves and removes checkpoints as fast as it can."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import DEVNULL, STDOUT, Popen, environment, python
from unbroken.checkpoint.structure import read_structure
from unbroken.cli import main
from unbroken.config import Effect, Effects
from unbroken.errors import Refused
from unbroken.launch import Job, Refuse, decide, gather
from unbroken.run import ITERATIONS, look_at
from unbroken.run.layout import manifests
from unbroken.run.survey import survey
from unbroken.storage.moved import Moved, looked_again, undisturbed
from unbroken.train import Exit, open_run

LOOKS = 12
BUSY = Path(__file__).with_name("busy_training.py")


@pytest.fixture
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that is trained meanwhile, and has removed checkpoints already; for one test, as its journal grows fast."""
    root = tmp_path_factory.mktemp("busy")
    process = Popen(python(BUSY, root), env=environment(), stdout=DEVNULL, stderr=STDOUT)
    try:
        give_up = time.monotonic() + 120
        while not list((root / "busy").glob("iter_[1-9][0-9].pth")):
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.02)
        yield root / "busy"
        assert process.poll() is None, "it was trained all the time"
    finally:
        process.kill()
        process.wait()


COMMANDS = {
    "verify": ["verify", "RUN"],
    "show": ["show", "RUN"],
    "ls": ["ls", "ROOT"],
    "audit": ["audit", "RUN", "--verify"],
    "compare": ["compare", "RUN", "OTHER"],
    "backup": ["backup", "RUN", "NEW"],
    "pack": ["pack", "RUN", "NEW.zip"],
    "log": ["log", "ROOT"],
    "pin": ["pin", "RUN"],
    "inspect": ["inspect", "NEWEST"],
    "prune": ["prune", "RUN", "--explain"],
}
OTHER_ENDINGS = {"backup": 10, "pack": 10, "prune": 11}  # its files change faster than they can be copied; it is held


@pytest.mark.parametrize("name", COMMANDS)
def test_a_look_ends_as_on_a_run_at_rest(
    name: str,
    busy: Path,
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(LOOKS):
        meant = {"RUN": busy, "ROOT": busy.parent, "OTHER": finished_run, "NEWEST": busy / "latest.pth"}
        meant |= {"NEW": Path(str(number)), "NEW.zip": Path(f"{number}.zip")}
        words = [str(meant.get(word, word)) for word in COMMANDS[name]]
        code = main(words)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err and "there is no such file" not in printed.out + printed.err, printed
        assert code in (0, OTHER_ENDINGS.get(name)), (name, printed)
        assert "damaged" not in printed.out, printed.out


def test_a_plan_and_a_second_launch_always_say_that_it_is_held(busy: Path) -> None:
    job = Job(
        recipe="open_run",
        tag="busy",
        directory=busy,
        config={"lr": 0.1},
        effects=Effects(own=Effect.DATA),
        seed=0,
        command="again",
    )
    for _ in range(LOOKS):
        plan = decide(job, gather(job))
        assert isinstance(plan, Refuse) and plan.exit_code == 11, plan
        facts = survey(busy, ITERATIONS)
        assert facts.newest_good is not None and not any(item.state == "damaged" for item in facts.candidates)
    with pytest.raises(Exit) as ending:
        open_run(busy.parent, tag="busy", config={"lr": 0.1})
    assert ending.value.code == 11


def test_what_was_found_of_a_file_that_was_replaced_or_removed_meanwhile_is_forgotten(
    run: Path, tmp_path: Path
) -> None:
    """Another save in the same place is no damage, and one that is gone is none either."""
    file, other = run / "iter_120.pth", run / "iter_110.pth"

    looks: list[int | None] = []

    def look() -> None:
        looks.append(read_structure(file).step)
        if len(looks) == 1 or looks[0] != 120:
            shutil.copyfile(other, tmp_path / "new")
            (tmp_path / "new").replace(file)

    undisturbed(file, look)
    assert looks == [120, 110]
    looks[:] = [0]
    with pytest.raises(Moved):
        undisturbed(file, look)
    with pytest.raises(Refused, match="change faster than they can be looked at"):
        looked_again(run, lambda: undisturbed(file, look))
    file.unlink()
    with pytest.raises(Moved):
        look_at(file, manifests(run))
    file.symlink_to("nowhere")
    assert look_at(file, manifests(run)).state == "damaged", "a link that leads nowhere stays one, and is said"
