"""Every row of the launch table on a real disk: the facts are there, `why` says what the table says, `train` does it.

What happened is read from what is left on the disk, and from the exit code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import tiny_training
from tests.golden.launch_facts import FOLDER
from tests.golden.launch_rows import ROWS
from tests.golden.on_disk import held_as_said, image_of, json_lines, lay_out
from tests.golden.row import Row
from tests.golden.test_launch_table import exit_code
from unbroken.checkpoint.kinds import model_part
from unbroken.cli import entry
from unbroken.errors import UnbrokenError
from unbroken.launch import Environment, Facts, FineTune, Finished, Resume, decide, gather
from unbroken.launch.explain import explain
from unbroken.run import Candidate, Survey
from unbroken.storage import PARTIAL_SUFFIX
from unbroken.train import fit, launch, read_checkpoint
from unbroken.train.arguments import SessionOptions
from unbroken.train.record.console import PlainConsole
from unbroken.train.stop import Exit

RECIPE = "tests.golden.tiny_training:recipe"
OWN = f"{FOLDER}/unbroken"
OF_THE_LOCK = {f"{OWN}/lock", f"{OWN}/holder.json"}
GROWS = (f"{OWN}/journal.jsonl", f"{OWN}/metrics.jsonl")
NOT_DONE: dict[str, str] = {}  # titles of rows that cannot be done, each with the reason: there are none

Image = Mapping[str, bytes]


@pytest.fixture(params=range(len(ROWS)), ids=[row.title for row in ROWS])
def number(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The number of a row that lies in the current folder, its lock held if the row says so."""
    row = ROWS[request.param]
    if row.title in NOT_DONE:
        pytest.skip(NOT_DONE[row.title])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNBROKEN_SEARCH_PATH", raising=False)
    torch.set_num_threads(1)
    lay_out(row)
    with held_as_said(row.facts.survey):
        yield request.param


def test_no_row_is_left_out() -> None:
    assert set(NOT_DONE) <= {row.title for row in ROWS}
    assert len(NOT_DONE) <= 3


# -- the facts -------------------------------------------------------------------------------------------------------


def known(facts: Facts) -> dict[str, Any]:
    """What the decision can see, without the words for it, which the next test compares."""
    return {
        "here": of_survey(facts.survey),
        "elsewhere": [of_survey(item) for item in facts.elsewhere],
        "named": [of_file(item) for item in (facts.exact, facts.origin, facts.weights) if item is not None],
        "missing": facts.missing,
        "near": facts.near,
    }


def of_survey(survey: Survey) -> dict[str, Any]:
    plain = ("directory", "exists", "record", "partials", "saves_ever", "sessions", "finished_at")
    states = ("archiving", "restoring", "held", "holder", "missing")
    files = {"candidates": [of_file(item) for item in survey.candidates]}
    return {name: getattr(survey, name) for name in (*plain, *states)} | files


def of_file(item: Candidate) -> dict[str, Any]:
    names = ("path", "step", "kind", "state", "run", "listed")
    said = (
        ("config", "lr", "total", "epoch", "position", "dataset_size", "extension", "processes") if item.inside else ()
    )
    is_opened = item.state == "good" and item.kind == "checkpoint"
    return {name: getattr(item, name) for name in names} | {name: item.inside.get(name) for name in said if is_opened}


# -- the question ----------------------------------------------------------------------------------------------------


def check_that_it_is_what_the_table_says(row: Row, code: int, said: Mapping[str, Any]) -> None:
    plan = decide(row.job, row.facts)
    assert code == exit_code(plan)
    told = dict(said)
    if isinstance(plan, FineTune) and row.facts.fit is None:  # weights are always compared with the network
        assert told.pop("fit")["complete"]
    assert told == {**json.loads(json.dumps(explain(row.job, plan).data)), "run": str(FOLDER), "ignored": []}


def ask(number: int, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """What `why --json` ends with and says; with `--shapes` where the row is about them.

    How full this machine's disk will be is no part of a row.
    """
    shapes = ["--shapes"] if ROWS[number].facts.fit is not None else []
    capsys.readouterr()
    code = entry.main(["why", RECIPE, str(number), *shapes, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert "disk" in said
    return code, {key: value for key, value in said.items() if key != "disk"}


# -- the deed --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Done:
    """What `why --json` had said, and what is there before and after `train`."""

    row: Row
    said: Mapping[str, Any]
    code: int
    before: Image
    after: Image
    weights: list[tiny_training.Weights]  # of each training before its first step

    @property
    def session(self) -> str:
        """The name of the session that was begun."""
        return str(self.events[0]["session"])

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the journal says of this session, from its beginning on."""
        all_events = json_lines(self.after[f"{OWN}/journal.jsonl"])
        begun = max(place for place, event in enumerate(all_events) if event["event"] == "session")
        return all_events[begun:]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps of this session."""
        return json_lines(self.after[f"{OWN}/metrics.jsonl"])

    def in_archive(self, name: str) -> str:
        """Where this session puts a file that it moves aside."""
        return f"{FOLDER}/archive/{self.session}/{name.removeprefix(f'{FOLDER}/')}"

    def keeps(self, name: str, *, at: str) -> bool:
        """Whether a file is now at that place, byte for byte; records may have grown."""
        now = self.after.get(at)
        return now is not None and (now == self.before[name] or (name in GROWS and now.startswith(self.before[name])))

    @property
    def moved(self) -> set[str]:
        """The files that were said to move into the archive."""
        if self.said.get("archive") or self.said.get("copied_from"):
            return {name for name in self.lasting() if name.startswith(f"{FOLDER}/")}
        aside = {item["file"] for item in self.said["rejected"] if item["set_aside"]}
        return {name for name in (*aside, *self.said.get("superseded", ())) if name.startswith(f"{FOLDER}/")}

    def lasting(self) -> list[str]:
        """The files that no launch may lose: all but the lock's, what a cut-off save left, and links."""
        return [
            name
            for name, content in self.before.items()
            if name not in OF_THE_LOCK and not name.endswith(PARTIAL_SUFFIX) and not content.startswith(b"-> ")
        ]

    def is_written_anew(self, manifest: str) -> bool:
        """Whether this is the manifest of a file that was moved aside, under whose name a new one was saved."""
        file = f"{FOLDER}/{Path(manifest).name.removesuffix('.json')}"
        stays = manifest.startswith(f"{OWN}/manifests/") and manifest not in self.moved
        return stays and file in self.moved and file in self.after


def do(number: int, folder: Path, said: Mapping[str, Any], before: Image) -> Done:
    """The row, of which `why` was asked, is done."""
    tiny_training.weights_of_first_steps.clear()
    code = run_script(number) if ROWS[number].job.is_script else entry.main(["train", RECIPE, str(number)])
    return Done(
        row=ROWS[number],
        said=said,
        code=code,
        before=before,
        after=image_of(folder),
        weights=[*tiny_training.weights_of_first_steps],
    )


def run_script(number: int) -> int:
    """The user's own program: what `open_run` does with a job, and a loop that asks for nothing first."""
    job = tiny_training.read([str(number)], Environment())
    try:
        with launch(job, console=PlainConsole(), options=SessionOptions(exits=True)) as run:
            fit(run, tiny_training.build(job, run.session_log.say))
    except Exit as ending:
        return int(str(ending.code))
    except UnbrokenError as refusal:  # with which `open_run` ends the process
        return refusal.exit_code
    return 0


def test_the_facts_are_found_why_says_what_the_table_says_and_train_does_it(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ROWS[number]
    before, names = image_of(tmp_path), sorted(tmp_path.rglob("*"))
    assert known(gather(row.job)) == known(row.facts)
    code, said = ask(number, capsys)
    check_that_it_is_what_the_table_says(row, code, said)
    assert (image_of(tmp_path), sorted(tmp_path.rglob("*"))) == (before, names), "looking has changed something"
    done = do(number, tmp_path, said, before)
    assert done.code == done.said.get("exit_code", 0)
    check_nothing_is_lost(done)
    match done.said["verdict"]:
        case "Refuse" | "Finished":
            check_nothing_happened(done)
        case "Fresh":
            check_the_whole_training(done)
            check_what_moved(done)
        case "FineTune":
            check_the_whole_training(done)
            check_what_moved(done)
            check_the_weights_came_from(done, done.said["file"])
            check_the_parent_is_recorded(done)
        case "Resume":
            check_the_training_went_on(done)
            check_what_moved(done)
            check_the_run_kept_its_identity(done)
        case other:
            pytest.fail(f"no such verdict: {other}")
    check_nothing_is_left_to_do(done)


def check_nothing_is_lost(done: Done) -> None:
    """The bytes of every file that was there are still somewhere, records perhaps with more behind them."""
    for name in done.lasting():
        copies = [at for at in done.after if done.keeps(name, at=at)]
        assert copies or done.is_written_anew(name), f"{name} is lost"


def check_nothing_happened(done: Done) -> None:
    assert without_lock(done.after) == without_lock(done.before)
    assert done.weights == []


def without_lock(image: Image) -> dict[str, bytes]:
    return {name: content for name, content in image.items() if name not in OF_THE_LOCK}


def check_the_journal_has_the_plan(done: Done) -> None:
    """The session was begun with the very plan; a file that was copied in has the name that the run gives it.

    Files that are merely not used are said before, and not recorded with every session again.
    """
    recorded, said = done.events[0]["plan"], dict(done.said)
    del said["run"], said["ignored"]
    said["rejected"] = [item for item in said["rejected"] if item["damaged"] or item["set_aside"]]
    if said.get("copied_from"):
        said["file"] = f"{FOLDER}/iter_{said['step']}.pth"
    assert recorded == said
    assert done.events[-1]["event"] == "finished"


def check_the_steps(done: Done, *, first: int) -> None:
    """Every step from the first to the last was done once, in this session, and nothing else."""
    last = done.row.job.total_steps or done.row.job.config["train"]["max_iters"]
    assert [line["step"] for line in done.steps] == list(range(first, last + 1))
    assert {line["session"] for line in done.steps} <= {done.session}
    assert done.events[-1]["step"] == last
    assert len(done.weights) == (1 if first <= last else 0)


def check_the_whole_training(done: Done) -> None:
    check_the_journal_has_the_plan(done)
    check_the_steps(done, first=done.said["next_step"])
    assert done.said["next_step"] == 1
    lr_at = done.row.job.lr_at
    assert lr_at is not None and done.steps[0]["lr"] == lr_at(0)


def check_the_training_went_on(done: Done) -> None:
    check_the_journal_has_the_plan(done)
    check_the_steps(done, first=done.said["next_step"])
    if not done.steps:
        assert done.said["step"] == done.row.job.total_steps
        return
    if done.said["lr_next"] is not None:
        assert done.steps[0]["lr"] == done.said["lr_next"]
    check_the_weights_came_from(done, done.said["file"])
    saved = read_checkpoint(FOLDER / f"iter_{done.steps[-1]['step']}.pth")["unbroken"]
    assert saved["extension"] == done.said["extension"]
    for curve in done.said["curves"][:1]:
        rates = {line["step"]: line["lr"] for line in done.steps}
        assert rates[curve["peak_step"]] == curve["lr_peak"] == max(rates.values())
        assert done.steps[-1]["lr"] == curve["lr_end"]


def check_the_weights_came_from(done: Done, file: str) -> None:
    """The file's bytes are still somewhere, and the model had its weights before the first step."""
    assert any(content == done.before[file] for content in done.after.values())
    copy = Path("source.pth")
    copy.write_bytes(done.before[file])
    weights = model_part(read_checkpoint(copy)) or {}
    (first,) = done.weights
    assert first.keys() == weights.keys()
    assert all(torch.equal(first[name], weights[name]) for name in first)


def check_the_parent_is_recorded(done: Done) -> None:
    parent = record_of(done)["parent"]
    assert (parent["file"], parent["step"]) == (done.said["file"], done.said["step"])


def check_the_run_kept_its_identity(done: Done) -> None:
    """The record is what it was; where it was lost or there was none, the file that is continued says who it is."""
    plan = decide(done.row.job, done.row.facts)
    assert isinstance(plan, Resume)
    known_here = done.row.facts.survey.record
    wanted = known_here.id if known_here is not None else plan.source.run
    assert not wanted or record_of(done)["id"] == wanted


def record_of(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.after[f"{OWN}/run.json"])
    return found


def check_what_moved(done: Done) -> None:
    """What was said to move is in the archive, and everything else is where it was."""
    for name in done.lasting():
        place = done.in_archive(name) if name in done.moved else name
        assert done.keeps(name, at=place) or done.is_written_anew(name), f"{name} is not at {place}"
    in_archive = {name for name in done.after if name.startswith(f"{FOLDER}/archive/")}
    links = {name for name in in_archive if done.after[name].startswith(b"-> ")}
    copied = {f"{FOLDER}/{event['file']}" for event in done.events if event["event"] == "kept a copy"}
    assert in_archive - links == {done.in_archive(name) for name in done.moved | copied}
    assert not any(name.endswith(PARTIAL_SUFFIX) for name in done.after)


def check_nothing_is_left_to_do(done: Done) -> None:
    """The next `why` finds the run complete, unless what was asked for is asked for again."""
    asked = done.row.job.start
    if done.code == 0 and not asked.fresh and asked.exact is None:
        plan = decide(done.row.job, gather(done.row.job))
        assert isinstance(plan, Finished), plan.reasons
