"""A season of short notebook sessions, each beginning with nothing but the outputs of earlier ones, ends as its twin.

Every session has an empty folder. What it leaves is committed as a notebook host does: under another name, sometimes
nested, renamed or packed, without links and with any times; and mounted read-only in the next session.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run_command
from tests.twin.aerial import write_job as write_aerial_job
from tests.twin.killing import assert_twins, evaluations, events, python, run_to_end, step_records
from tests.twin.season import Host, Working, cut_off_newest
from tests.twin.sonar import FRAMES
from tests.twin.sonar import write_job as write_sonar_job
from unbroken.run import read_record
from unbroken.train import differences, read_checkpoint

APP = Path(__file__).resolve().parents[2] / "apps" / "mapsage"
STEPS, EVALUATE_EVERY, SAVE_EVERY = 180, 20, 6
TILES = 40  # to evaluate: long enough that there are sessions with no time for it
LONGER = f"""
_base_ = "./small.py"
optim_wrapper = dict(accumulative_counts=1)
train_cfg = dict(max_iters={STEPS}, val_interval={EVALUATE_EVERY})
default_hooks = dict(checkpoint=dict(interval={SAVE_EVERY}))
"""
ENDING_SHARE = 0.6  # of what its beginning took: what a session leaves of its time for its own end
GUIDES_WAY = python("scripts/train.py", "configs/season.py")
OTHER_WAY = python("-m", "unbroken", "train", "mapsage", "configs/season.py")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application as a notebook clones it, with a small job."""
    folder = tmp_path_factory.mktemp("season")
    template = folder / "MapSage_V5"
    shutil.copytree(APP / "scripts", template / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (template / "configs").mkdir()
    shutil.move(write_aerial_job(folder, steps=STEPS, val=TILES), template / "configs")
    (template / "configs" / "season.py").write_text(LONGER, "utf-8")
    return template


@pytest.fixture(scope="module")
def twin(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training in one session that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    command = [*GUIDES_WAY[:1], program / GUIDES_WAY[1], program / GUIDES_WAY[2], "--work-dir", folder / "season"]
    done = run_command(command, fresh=True)  # how long its beginning takes is what the seasons know of that
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "season"


class Season:
    """The sessions of one training, one after the other; `pace` is what another one recorded of its own."""

    def __init__(self, host: Host, commands: Sequence[list[str]], *, pace: Mapping[str, Any]) -> None:
        self.host = host
        self.chance = host.chance
        self.commands = commands
        self.startups_s = [float(pace["startup_s"])]
        self.step_s = float(pace["seconds"]) / int(pace["steps"])
        self.mount_all = False  # because the last output alone would not do
        self.due = 0  # the step of an evaluation that the next session has to do first
        self.cut_off = ""  # the damaged file that the next session has to name

    def begin(self, *options: object, fresh: bool = False, **extra: str) -> Working:
        command = self.chance.choice(self.commands)
        mounts = "all" if self.mount_all else self.chance.choice(["all", "last"])
        self.mount_all = False
        return self.host.session([*command, *options], mounts=mounts, fresh=fresh, **extra)

    def over(self, session: Working, kind: str, *, codes: Sequence[int], trained: int = 3) -> Path:
        how = self.host.commit(session)
        steps = session.steps()
        if session.first_step_s and session.fresh:
            self.startups_s.append(session.first_step_s)
        done = f"steps {steps[0]}-{steps[-1]}" if steps else "no step"
        print(f"session {session.number}: {kind}, {done}, evaluated {session.evaluated()}, committed {how}")
        assert session.returncode in codes, session.output
        assert len(steps) >= trained, session.output
        if session.number > 1 and (session.records() or session.returncode == 75):  # not one that was just arriving
            self._went_on(session)
        return self.host.outputs[-1]

    def _went_on(self, session: Working) -> None:
        assert session.output.startswith("plan: RESUME"), session.output
        named = re.search(rf"damaged: .*{self.cut_off}", session.output)
        assert named or not self.cut_off, session.output
        self.cut_off = ""
        if self.due and session.records():
            first = session.records()[0]
            assert first["step"] == self.due and "evaluation" in first, "the evaluation that was due was not done first"
            self.due = 0

    def killed(self, *options: object) -> None:
        session, wanted = self.begin(*options), self.chance.randint(8, 20)
        session.wait(lambda: len(session.steps()) >= wanted and session.checkpoints() > 0)
        time.sleep(self.chance.random() * 2 * self.step_s)
        session.end(signal.SIGKILL)
        self.over(session, f"killed {options}", codes=[-signal.SIGKILL])

    def killed_on_arrival(self) -> None:
        """What it leaves may be nothing, or half a copy: the outputs before are needed."""
        session = self.begin()
        session.wait(lambda: (session.run / "unbroken").exists())
        time.sleep(self.chance.random() * 0.03)
        session.end(signal.SIGKILL)
        self.over(session, "killed on arrival", codes=[-signal.SIGKILL], trained=0)
        self.mount_all = True

    def stopped(self, *options: object) -> None:
        session, wanted = self.begin(*options), self.chance.randint(8, 20)
        session.wait(lambda: len(session.steps()) >= wanted)
        session.end(signal.SIGTERM)
        assert "stopped by SIGTERM" in session.output
        self.over(session, f"SIGTERM {options}", codes=[75])

    def with_other_workers(self) -> None:
        self.chance.choice([self.killed, self.stopped])("--workers", self.chance.choice([1, 2]))

    def ended_by_its_deadline(self) -> None:
        """A slow machine may need more than one of them to get anywhere; that is a season too."""
        for attempt in range(3):
            trains_s = self.chance.uniform(12, 24) * self.step_s + 2 * attempt
            length_s = (1 + ENDING_SHARE) * self.startups_s[-1] + trains_s
            if self.chance.random() < 0.5:
                session = self.begin("--session", f"{length_s + 1:.2f}s", "--reserve", "1s", fresh=True)
            else:
                session = self.begin(fresh=True, UNBROKEN_SESSION_END=f"{time.time() + length_s:.3f}")
            session.end()
            assert "stopped by the end of the session" in session.output, session.output
            self.over(session, f"deadline after {length_s:.1f} s", codes=[75], trained=0)
            if len(session.steps()) >= 3:
                return
        pytest.fail("no session with a deadline did three steps")

    def stopped_in_an_evaluation_and_then_too_short_for_it(self) -> None:
        # A machine that has become quicker than it was has the time after all.
        if not any(self._then_too_short(share) for share in (1.0, 0.9, 0.8)):
            pytest.fail("no session was too short for an evaluation")

    def _then_too_short(self, share: float) -> bool:
        session = self.begin()
        session.wait(lambda: bool(session.evaluated()))  # how long it takes is known from here on
        due = session.evaluated()[-1] + EVALUATE_EVERY
        session.wait(lambda: session.steps()[-1:] >= [due])  # an evaluation that was missed comes before the first step
        session.end(signal.SIGTERM)
        self.over(session, "SIGTERM in an evaluation", codes=[75], trained=EVALUATE_EVERY)
        assert session.steps()[-1] == due and due not in session.evaluated(), session.output

        length_s = (1 + ENDING_SHARE / 2) * min(self.startups_s) * share
        short = self.begin(fresh=True, UNBROKEN_SESSION_END=f"{time.time() + length_s:.3f}")
        short.end()
        self.over(short, f"only {length_s:.1f} s", codes=[75], trained=0)
        self.due = 0 if short.records() else due  # it was not too short, and did the evaluation itself
        return not short.records()

    def with_its_newest_checkpoint_cut_off(self) -> None:
        session, wanted = self.begin(), self.chance.randint(SAVE_EVERY, 20)
        session.wait(lambda: len(session.steps()) >= wanted and session.checkpoints() > 1)
        session.end(self.chance.choice([signal.SIGTERM, signal.SIGKILL]))
        output = self.over(session, "its newest checkpoint cut off", codes=[75, -signal.SIGKILL])
        self.cut_off = cut_off_newest(output, self.chance)
        print(f"  cut off: {self.cut_off}")

    def ends(self) -> Working:
        session = self.begin()
        session.end()
        self.over(session, "to its end", codes=[0])
        return session


@pytest.mark.timeout(600)
def test_a_season_of_notebook_sessions_ends_as_its_twin(program: Path, twin: Path, tmp_path: Path) -> None:
    seed = 401
    print(f"seed {seed}")
    chance = random.Random(seed)
    host = Host(tmp_path, program, Path("work_dirs") / "season", chance)
    season = Season(host, [GUIDES_WAY, OTHER_WAY], pace=events(twin, "timing")[-1])
    kinds = [
        season.killed,
        season.stopped,
        season.with_other_workers,
        season.ended_by_its_deadline,
        season.stopped_in_an_evaluation_and_then_too_short_for_it,
        season.with_its_newest_checkpoint_cut_off,
        season.killed_on_arrival,
    ]
    chance.shuffle(kinds)
    for kind in kinds:
        kind()
    last = season.ends()

    run = last.run
    assert_twins(run, twin, f"iter_{STEPS}.pth")
    assert sorted(step_records(run)) == list(range(1, STEPS + 1))
    assert sorted(evaluations(run)) == list(range(EVALUATE_EVERY, STEPS + 1, EVALUATE_EVERY))
    assert_same_best(run, twin, f"iter_{STEPS}.pth", "")
    assert_records(host, run)


def test_a_season_by_epochs_ends_as_its_twin(tmp_path: Path) -> None:
    seed, epochs = 403, 6
    print(f"seed {seed}")
    program = tmp_path / "Focal-SST-Sonar"
    program.mkdir()
    write_sonar_job(program, epochs=epochs, pasting=False)
    typed = ["train.py", "--cfg_file", "cfgs/sonar_models/tiny.yaml", "--extra_tag", "t"]
    command = python(*typed, "--ckpt_save_interval", 1, "--ckpt_save_time_interval", 1, "--pictures", 1)
    whole = tmp_path / "whole"
    shutil.copytree(program, whole)
    done = run_to_end(command, cwd=whole)
    assert done.returncode == 0, done.output
    place, last = Path("output/sonar_models/tiny/t"), f"ckpt/checkpoint_epoch_{epochs}.pth"

    host = Host(tmp_path, program, place, random.Random(seed))
    season = Season(host, [command], pace=events(whole / place, "timing")[-1])
    season.killed()
    season.stopped("--workers", 2)
    run = season.ends().run

    assert_twins(run, whole / place, last)
    used: dict[int, list[int]] = {}
    for _, record in sorted(step_records(run).items()):
        used.setdefault(record["epoch"], []).extend(record["samples"])
    assert [sorted(samples) for _, samples in sorted(used.items())] == [list(range(FRAMES))] * epochs
    assert_same_best(run, whole / place, last, "ckpt")
    assert_records(host, run)


def assert_same_best(run: Path, twin: Path, last: str, folder: str) -> None:
    """The best metric, its value and step, and the file of its weights."""
    best = [read_checkpoint(one / last)["unbroken"]["best"] for one in (run, twin)]
    assert best[0] == best[1] and best[0]
    names = [sorted(path.name for path in (one / folder).glob("best_*")) for one in (run, twin)]
    assert names[0] == names[1] and len(names[0]) == 1
    weights = [read_checkpoint(one / folder / names[0][0]) for one in (run, twin)]
    assert differences(*weights) == []


def assert_records(host: Host, run: Path) -> None:
    """What was done twice was the same, each sample was used once, and it was one run all along."""
    verdicts = [event["verdict"] for event in events(run, "replayed")]
    assert all("bit-identical" in verdict for verdict in verdicts), verdicts
    audit = run_to_end(python("-m", "unbroken", "audit", run))
    assert audit.returncode == 0, audit.output
    records = [read_record(session.run) for session in host.sessions]
    assert len({record.id for record in records if record is not None}) == 1
