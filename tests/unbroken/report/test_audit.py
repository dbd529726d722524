"""The audit proves a run of any history from its records alone, and finds every planted fault by its name."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run_command
from tests.twin import aerial, sonar
from tests.twin.killing import events, kill_until_done, python, run_to_end
from tests.unbroken.cli.typing_commands import contents
from tests.unbroken.report.runs import KILLED, edit, journal, metrics, session
from unbroken.cli import main
from unbroken.report.audit import Audit, audit

PLAIN = Path(__file__).resolve().parents[3] / "examples" / "plain_loop.py"
PER_EPOCH = 6  # steps: 22 samples in fours, the last step of an epoch has two


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that nobody touched, and one that was killed beyond its saves three times."""
    folder = tmp_path_factory.mktemp("audited")
    whole = session(folder / "whole", evaluate=5)
    for kill_at in (7, 10, 15):
        session(folder / "cut", kill_at=kill_at, ends=KILLED, evaluate=5)
    cut = session(folder / "cut", evaluate=5)
    return {"whole": whole, "cut": cut}


@pytest.fixture
def whole(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["whole"], tmp_path / "run", symlinks=True))


@pytest.fixture
def cut(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["cut"], tmp_path / "run", symlinks=True))


def said(found: Audit) -> str:
    return "\n".join(map(str, found.findings))


def assert_good(found: Audit, verdict: str) -> None:
    assert found.good, said(found)
    assert found.verdict == f"audit: {verdict}"


# -- histories ---------------------------------------------------------------------------------------------------------


def test_an_uninterrupted_run(whole: Path) -> None:
    found = audit(whole, verify=True)
    assert_good(found, "18 steps, each once; 3 epochs, each sample once")
    assert (found.samples, found.size, found.saves, found.evaluations) == (66, 22, 5, 3)
    assert found.notes == () and found.repeats.lost == 0
    assert [(s.first, s.last, s.kept, s.ended) for s in found.sessions] == [(1, 18, 18, "finished")]


def test_a_run_killed_beyond_its_saves(cut: Path) -> None:
    found = audit(cut)
    assert_good(found, "18 steps, each once; 3 epochs, each sample once")
    assert [(s.base, s.first, s.last, s.kept) for s in found.sessions] == [
        (0, 1, 7, 5),
        (5, 6, 10, 3),
        (8, 9, 15, 4),
        (12, 13, 18, 6),
    ] or found.repeats.lost > 0  # where a save was still being written at the kill
    assert sum(s.kept for s in found.sessions) == 18
    repeats = found.repeats
    assert repeats.lost == repeats.compared == repeats.identical > 0


def test_looking_changes_nothing(cut: Path) -> None:
    before = contents(cut)
    assert main(["audit", str(cut), "--verify"]) == 0
    assert contents(cut) == before


@pytest.mark.parametrize("seed", [21, 22])
def test_a_plain_loop_killed_anywhere(tmp_path: Path, seed: int) -> None:
    commands = [python(PLAIN, tmp_path, workers) for workers in (0, 2)]
    run = tmp_path / "plain_loop"
    kill_until_done(run, commands, random.Random(seed), kills=3, steps_apart=18)
    assert_good(audit(run, verify=True), "120 steps, each once; 20 epochs, each sample once")


def test_batches_that_straddle_epochs(tmp_path: Path) -> None:
    config = aerial.write_job(tmp_path)
    command = python("-m", "unbroken", "train", "mapsage", config, "--work-dir", tmp_path / "run")
    kill_until_done(tmp_path / "run", [command], random.Random(7), kills=2, steps_apart=9)
    found = audit(tmp_path / "run")
    assert_good(found, "36 steps, each once; 10 epochs and a part of one, each sample once")
    assert found.samples == 36 * 4 == 10 * 14 + 4


def test_a_training_by_epochs(tmp_path: Path) -> None:
    config = sonar.write_job(tmp_path, accumulate=4, epochs=2, pasting=False)
    options = ["--cfg_file", config, "--extra_tag", "t", "--output", tmp_path / "output"]
    run = tmp_path / "output" / config.parent.name / config.stem / "t"
    command = python("-m", "unbroken", "train", "focalsst", *options)
    kill_until_done(run, [command], random.Random(8), kills=1, steps_apart=3)
    assert_good(audit(run), "6 steps, each once; 2 epochs, each sample once")


def test_a_rewind_to_an_earlier_checkpoint(whole: Path, tmp_path: Path) -> None:
    run = session(tmp_path / "again", kill_at=14, ends=KILLED)
    session(tmp_path / "again", ckpt=str(run / "iter_4.pth"))
    found = audit(run)
    assert_good(found, "18 steps, each once; 3 epochs, each sample once")
    assert [(s.base, s.kept) for s in found.sessions] == [(0, 4), (4, 14)]
    assert (found.repeats.lost, found.repeats.identical) == (10, 10)


def test_a_history_that_came_back_from_a_copy(tmp_path: Path) -> None:
    run = session(tmp_path / "here", evaluate=5)
    shutil.copytree(run, tmp_path / "kept" / "tiny", symlinks=True)
    for path in run.glob("*.pth"):
        path.unlink()
    session(tmp_path / "here", evaluate=5, search=[str(tmp_path / "kept")])
    found = audit(run, verify=True)
    assert_good(found, "18 steps, each once; 3 epochs, each sample once")
    assert found.changes == (), "no step was added"
    assert not any("before it could say so" in note for note in found.notes), found.notes


def test_a_branch_that_is_given_up_for_a_file_from_the_archive(tmp_path: Path) -> None:
    run = session(tmp_path, kill_at=13, ends=KILLED)
    session(tmp_path, ckpt=str(run / "iter_4.pth"), batch_size=2, kill_at=11, ends=KILLED)
    (kept,) = (run / "archive").glob("*/iter_12.pth")
    session(tmp_path, ckpt=str(kept))
    found = audit(run)
    assert_good(found, "18 steps, each once; 3 epochs, each sample once")
    assert [(s.base, s.kept) for s in found.sessions] == [(0, 12), (4, 0), (12, 6)]


def test_a_fresh_start_is_a_history_of_its_own(tmp_path: Path) -> None:
    run = session(tmp_path, epochs=1)
    session(tmp_path, epochs=2, fresh=True)
    assert_good(audit(run), "12 steps, each once; 2 epochs, each sample once")
    (old,) = (path for path in (run / "archive").iterdir() if path.is_dir())
    assert_good(audit(old), "6 steps, each once; 1 epoch, each sample once")


def test_a_run_that_was_killed_before_its_first_save(tmp_path: Path) -> None:
    run = session(tmp_path, kill_at=3, ends=KILLED)
    found = audit(run)
    assert_good(found, "3 steps, each once; 0 epochs and a part of one, each sample once")
    session(tmp_path)
    found = audit(run)
    assert_good(found, "18 steps, each once; 3 epochs, each sample once")
    assert found.repeats.identical == 3


def test_an_extension(tmp_path: Path) -> None:
    config, run = aerial.write_job(tmp_path, steps=6), tmp_path / "run"
    command = python("-m", "unbroken", "train", "mapsage", config, "--work-dir", run)
    for longer in ([], ["--cfg-options", "train_cfg.max_iters=10"]):
        done = run_to_end([*command, *longer])
        assert done.returncode == 0, done.output
    found = audit(run)
    assert_good(found, "10 steps, each once; 2 epochs and a part of one, each sample once")
    assert "after step 6: train_cfg.max_iters: 6 -> 10 (schedule)" in found.changes
    assert "after step 6: the run was finished and is made longer" in found.changes


@pytest.mark.parametrize("shuffle", [True, "stream"])
def test_a_batch_size_changed_in_the_middle_of_an_epoch(tmp_path: Path, shuffle: Any) -> None:
    long = {"steps": 20} if shuffle == "stream" else {"epochs": 3}
    run = session(tmp_path, kill_at=10, ends=KILLED, shuffle=shuffle, **long)
    session(tmp_path, batch_size=3, shuffle=shuffle, **long)
    found = audit(run)
    assert found.good, said(found)
    (change,) = found.changes
    assert change == "after step 8: batch_size: 4 -> 3 (data)"
    assert found.repeats.changed == 2 and found.repeats.other_order is None
    assert found.whole_epochs == 3


def test_steps_that_hold_the_end_of_an_epoch_and_the_beginning_of_the_next(tmp_path: Path) -> None:
    run = session(tmp_path, accumulate=4)  # 18 micro-batches in fours: the third step holds parts of two epochs
    assert_good(audit(run), "4 steps, each once; 2 epochs and a part of one, each sample once")


def test_what_is_left_over_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    found = audit(session(tmp_path, drop_last=True))
    assert_good(found, "15 steps, each once; 3 epochs, each sample once")
    assert found.notes[0] == "epoch 1: 2 samples left over at its end (drop_last)"


def test_samples_that_cannot_be_read_are_excused(tmp_path: Path) -> None:
    run = session(tmp_path, bad=[3, 9], on_bad="skip", kill_at=6, ends=KILLED)
    session(tmp_path, bad=[3, 9], on_bad="skip")
    found = audit(run)
    assert_good(found, "18 steps, each once; 3 epochs, each sample once")
    assert found.excused == 6


def test_a_data_set_that_grew(tmp_path: Path) -> None:
    run = session(tmp_path, kill_at=7, ends=KILLED)
    session(tmp_path, size=30, epochs=4)
    found = audit(run)
    assert found.good, said(found)
    assert "the data set had 22 samples up to epoch 1, then 30" in found.notes
    assert (found.repeats.resized, found.repeats.compared) == (3, 0)  # steps 5-7 were lost with the smaller one


def test_a_loop_that_draws_its_own_batches(tmp_path: Path) -> None:
    found = audit(session(tmp_path, own_batches=True))
    assert_good(found, "9 steps, each once; its loop draws its own samples")


def test_records_that_begin_in_the_middle(cut: Path) -> None:
    def keep_last_session(records: list[dict[str, Any]]) -> None:
        begun = max(at for at, record in enumerate(records) if record.get("event") == "session")
        name = records[begun]["session"]
        records[begun]["plan"] |= {"written_by": "OpenPCDet checkpoint", "position": None}
        records[:] = [record for record in records if record["session"] == name]

    edit(journal(cut), keep_last_session)
    last = events(cut, "session")[0]["session"]
    edit(metrics(cut), lambda records: records.__setitem__(slice(None), [r for r in records if r["session"] == last]))
    found = audit(cut)
    assert found.good, said(found)
    assert f"steps 1-{found.first} were done by OpenPCDet before these records begin" in found.notes
    assert found.first > 0 and found.first + found.steps == 18


# -- planted faults ----------------------------------------------------------------------------------------------------


def at_step(records: list[dict[str, Any]], step: int, *, last: bool = True) -> int:
    places = [at for at, record in enumerate(records) if record.get("step") == step and "samples" in record]
    return places[-1 if last else 0]


@pytest.mark.parametrize("step", [7, 9, 12])
def test_a_removed_line_is_a_step_without_a_record(whole: Path, step: int) -> None:
    samples: list[int] = []
    edit(metrics(whole), lambda records: samples.extend(records.pop(at_step(records, step))["samples"]))
    found = audit(whole)
    assert f"metrics.jsonl: step {step} has no record" in said(found)
    assert f"{len(samples)} samples of epoch 2 never used: {', '.join(map(str, sorted(samples)))}" in said(found)
    assert len(found.findings) == 2 and found.missing == 1


def test_lines_removed_at_the_end_are_missed_by_the_journal(whole: Path) -> None:
    edit(metrics(whole), lambda records: records.__delitem__(slice(at_step(records, 17), None)))
    found = audit(whole)
    assert "iter_18.pth was saved after step 18, but session" in said(found)
    assert "the run was finished after step 18" in said(found)


def test_a_sample_used_twice_is_named_with_its_steps(whole: Path) -> None:
    def plant(records: list[dict[str, Any]]) -> None:
        records[at_step(records, 10)]["samples"][1] = records[at_step(records, 8)]["samples"][0]

    edit(metrics(whole), plant)
    twice, never = audit(whole).findings
    assert twice.words == f"sample {twice.samples[0]} is used 2 times in epoch 2: steps 8, 10"
    assert never.words == f"1 sample of epoch 2 never used: {never.samples[0]}"


def test_a_sample_used_twice_is_named_before_its_epoch_is_over(whole: Path) -> None:
    def plant(records: list[dict[str, Any]]) -> None:
        del records[at_step(records, 11) :]
        records[at_step(records, 10)]["samples"][1] = records[at_step(records, 8)]["samples"][0]

    edit(metrics(whole), plant)
    assert "times in epoch 2: steps 8, 10" in said(audit(whole))


@pytest.mark.parametrize("place", ["inside", "at the seam"])
def test_a_sample_used_twice_in_a_stream(tmp_path: Path, place: str) -> None:
    run = session(tmp_path, steps=20, shuffle="stream")
    assert_good(audit(run), "20 steps, each once; 3 epochs and a part of one, each sample once")
    step = 8 if place == "inside" else 11

    def plant(records: list[dict[str, Any]]) -> None:
        records[at_step(records, step)]["samples"].append(records[at_step(records, 7)]["samples"][0])

    edit(metrics(run), plant)
    found = audit(run)
    (finding,) = found.findings
    assert finding.words.startswith(f"sample {finding.samples[0]} is used 2 times in epoch 2: steps 7, {step}")


@pytest.mark.parametrize(("first", "count"), [(8, 1), (5, 3), (11, 1)])
def test_lines_removed_from_a_stream_are_the_only_fault(tmp_path: Path, first: int, count: int) -> None:
    run = session(tmp_path, steps=20, shuffle="stream")
    edit(metrics(run), lambda records: records.__delitem__(slice(first - 1, first - 1 + count)))
    found = audit(run)
    assert found.findings[0].step == first and found.missing == count
    assert sum(len(finding.samples) for finding in found.findings[1:]) == 4 * count, said(found)
    assert all("never used" in finding.words for finding in found.findings[1:]), said(found)


def test_swapped_lines_are_named(whole: Path) -> None:
    def swap(records: list[dict[str, Any]]) -> None:
        one, two = at_step(records, 7), at_step(records, 8)
        records[one], records[two] = records[two], records[one]

    edit(metrics(whole), swap)
    (finding,) = audit(whole).findings
    assert (finding.step, finding.words) == (
        8,
        f"step 8 stands before step 7, which is on line {(finding.line or 0) + 1}",
    )


def test_a_step_recorded_twice_is_named(whole: Path) -> None:
    edit(metrics(whole), lambda records: records.insert(3, dict(records[2])))
    (finding,) = audit(whole).findings
    assert str(finding).startswith("metrics.jsonl line 4: step 3 is recorded twice in session")


def rewinds(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if "rewound" in record]


def test_a_rewind_that_the_journal_does_not_know_of_is_named(cut: Path) -> None:
    def plant(records: list[dict[str, Any]]) -> None:
        rewinds(records)[0]["rewound"]["to"] -= 1

    assert audit(cut).good
    edit(metrics(cut), plant)
    (finding,) = audit(cut).findings
    assert "but by the journal it went on after" in finding.words and "rewound to step" in finding.words


@pytest.mark.parametrize("rewound", [None, 7, {"to": "x"}, {"to": True}, []])
def test_a_garbled_rewind_is_named_and_stops_nothing(cut: Path, rewound: object) -> None:
    edit(metrics(cut), lambda records: rewinds(records)[0].__setitem__("rewound", rewound))
    (finding,) = audit(cut).findings
    assert finding.words == "this rewind names no step, or no session of the journal"


def test_a_changed_bit_of_a_repeated_loss_is_named(cut: Path) -> None:
    def flip(records: list[dict[str, Any]]) -> None:
        records[at_step(records, 10, last=False)]["loss"] *= 1 + 2**-50

    edit(metrics(cut), flip)
    (finding,) = audit(cut).findings
    assert finding.step == 10 and "differs from line" in finding.words and "loss 0." in finding.words


def test_other_samples_in_a_repeated_step_are_named(cut: Path) -> None:
    edit(metrics(cut), lambda records: records[at_step(records, 10, last=False)]["samples"].reverse())
    (finding,) = audit(cut).findings
    assert finding.step == 10 and finding.words.endswith("other samples")


def test_a_deleted_manifest_is_named(whole: Path) -> None:
    (whole / "unbroken" / "manifests" / "iter_8.pth.json").unlink()
    (finding,) = audit(whole).findings
    assert finding.file == "manifests/iter_8.pth.json" and "saved after step 8" in finding.words


def test_a_flipped_byte_is_found_when_every_byte_is_read(whole: Path) -> None:
    raw = bytearray((whole / "iter_8.pth").read_bytes())
    raw[len(raw) // 2] ^= 1
    (whole / "iter_8.pth").write_bytes(raw)
    (finding,) = audit(whole, verify=True).findings
    assert finding.file == "iter_8.pth"


def test_a_number_that_no_sample_has_is_named(whole: Path) -> None:
    edit(metrics(whole), lambda records: records[at_step(records, 3)]["samples"].__setitem__(0, 99))
    assert "epoch 1 uses 99, but the data set has 22 samples" in said(audit(whole))


# -- damage is told, never a crash -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", "journal.jsonl"])
def test_a_missing_record_is_said(cut: Path, name: str) -> None:
    (cut / "unbroken" / name).unlink()
    found = audit(cut)
    assert said(found).startswith(f"{name}: missing")
    if name == "journal.jsonl":  # the steps themselves still tell their sessions
        assert found.steps == 18 and found.whole_epochs == 3


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_is_a_crash(cut: Path, seed: int) -> None:
    chance = random.Random(seed)
    for file in (metrics(cut), journal(cut), cut / "unbroken" / "run.json"):
        raw = bytearray(file.read_bytes())
        for _ in range(chance.randint(0, 6)):
            at = chance.randrange(len(raw))
            raw[at : at + chance.choice([0, 1, 40])] = chance.randbytes(chance.choice([0, 1, 9]))
        file.write_bytes(raw[: chance.choice([len(raw), chance.randrange(len(raw))])])
    assert isinstance(audit(cut).verdict, str)


@pytest.mark.parametrize(
    "value", [None, [], {}, "x", -1, True, 10**30, [[1]], [None], {"a": 1}, float("nan")], ids=repr
)
def test_no_value_of_any_entry_is_a_crash(cut: Path, value: Any) -> None:
    for file in (metrics(cut), journal(cut)):
        keys = sorted({key for record in records_of(file) for key in record})
        for key in keys:
            before = file.read_bytes()
            edit(file, lambda records, key=key: [record.__setitem__(key, value) for record in records[::3]])  # type: ignore[misc]
            assert isinstance(audit(cut).as_data()["verdict"], str)
            file.write_bytes(before)


def records_of(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    edit(file, found.extend)
    return found


def test_half_a_line_is_a_note(whole: Path) -> None:
    with metrics(whole).open("ab") as file:
        file.write(b'{"step": 19, "ses')
    assert audit(whole).good and audit(whole).notes == ()
    with metrics(whole).open("ab") as file:
        file.write(b"\n")
    found = audit(whole)
    assert found.good and "is not a record" in found.notes[0]


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_has_the_exit_code_and_the_data(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(cut)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "audit: 18 steps, each once; 3 epochs, each sample once"
    edit(metrics(cut), lambda records: records.__delitem__(at_step(records, 9)))
    assert main(["audit", str(cut)]) == 12
    out = capsys.readouterr().out
    assert "wrong: metrics.jsonl: step 9 has no record" in out and "things wrong in 17 steps" in out


def test_the_command_loads_no_torch(cut: Path) -> None:
    program = "import sys; from unbroken.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    done = run_command(python("-c", program, "audit", cut, "--json"), fresh=True)
    assert done.returncode == 0 and not {"torch", "numpy"} & set(done.stdout.split())
