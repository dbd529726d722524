"""What a proof says, where it trains, and what it answers to commands that cannot be proved."""

import json
import os
import random
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.processes import Popen, environment, python, run_command
from tests.unbroken.prove.proofs import proof_of, put
from unbroken.cli import main
from unbroken.errors import UsageError
from unbroken.launch.host import Trial
from unbroken.prove import Settings, prove
from unbroken.prove.comparison import plain
from unbroken.prove.kills import choose_kills, in_words, save_interval
from unbroken.train.stop import OnTrial, StopFlag

ROOT = Path(__file__).parents[3]


def test_a_sound_loop_passes_and_each_number_that_is_said_was_compared(tmp_path):
    proof = proof_of("sound", tmp_path, kills=2, seed=1, workers=(0, 2))
    assert proof.exact and not proof.likely, proof.lines
    kills = in_words(choose_kills([("", 10)], 2, random.Random(1), every=2))
    (_, found), *others = proof.compared
    assert (
        f"10 steps in peace and with {kills}: {found.tensors} tensors and 20 logged values equal bit for bit"
        in proof.lines
    )
    assert found.steps == 10 and found.tensors > 20
    data = proof.as_data()
    assert data["exact"] and data["compared"][0] == {"how": f"with {kills}", **plain(found)}
    assert [how.partition(" and ")[0] for how, _ in others] == ["with 0 loader workers", "with 2 loader workers"]


@pytest.mark.parametrize(("loop", "words"), [("by_epochs", ["0"]), ("by_steps", [])])
def test_the_loops_that_other_twins_are_made_of_pass(loop, words, tmp_path):
    script = ROOT / "tests" / "twin" / "loops" / f"{loop}.py"
    settings = Settings(steps=12, kills=2, seed=1, workers=())
    proof = prove(python(script, tmp_path / "out", *words), settings, environment=environment(), start=Popen)
    assert proof.exact, proof.lines
    assert not (tmp_path / "out").exists()


def test_all_is_trained_in_a_scratch_folder_that_is_kept_only_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    assert proof_of("sound", tmp_path).scratch is None
    assert not any((tmp_path / "scratch").iterdir())
    kept = proof_of("sound", tmp_path, keep=True)
    assert kept.scratch is not None and kept.scratch.parent == tmp_path / "scratch"
    assert len(list(kept.scratch.glob("twin-*/runs/t-*/iter_6.pth"))) == 2
    assert kept.lines[-1] == f"all that was trained lies in {kept.scratch}"
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"planted.py", "loop.py", "scratch"}


def test_several_runs_of_one_process_are_all_compared(tmp_path):
    proof = proof_of("two_runs", tmp_path, kills=2, seed=5)
    assert proof.exact, proof.lines
    assert "the command opens 2 runs, one after the other: all are compared" in proof.lines
    assert proof.compared[0][1].steps == 12


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_short_training_is_resumed_from_a_save(steps, tmp_path):
    proof = proof_of("sound", tmp_path, steps=steps, seed=1)
    assert proof.exact, proof.lines
    assert re.search("and with 1 kill .* equal bit for bit", proof.lines[-1])


def test_a_kill_comes_before_the_next_step_is_over_even_if_its_thread_has_no_turn(monkeypatch):
    sent = []
    monkeypatch.setattr("os.kill", lambda number, name: sent.append((number, name)))
    trial = Trial(place="p", until=9, save_every=2, run="r", after=3, signal="SIGTERM", share=1.0)
    session, stop = OnTrial(trial=trial, run="r"), StopFlag()
    for step, expected in ((2, 0), (3, 0), (4, 1)):
        session.counted(step, 600.0, stop=stop, wait_for_saves=lambda: None)
        assert len(sent) == expected
    assert sent == [(os.getpid(), signal.SIGTERM)] and session.strike is not None
    assert not session.strike.is_alive(), "it would strike again, when nobody listens any more"


def test_a_kill_that_would_come_after_the_last_step_does_not_come():
    trial = Trial(place="p", until=4, save_every=2, run="r", after=3, signal="SIGTERM", share=1.0)
    session, stop = OnTrial(trial=trial, run="r"), StopFlag()
    for step in (3, 4):
        session.counted(step, 600.0, stop=stop, wait_for_saves=lambda: None)
    assert session.strike is not None and not session.strike.is_alive() and stop.reason


def test_kills_are_those_of_their_seed_and_of_both_signals():
    def chosen(seed):
        return choose_kills([("one", 30)], 3, random.Random(seed), every=3)

    assert chosen(1) == chosen(1) != chosen(2)
    for seed in range(20):
        kills = chosen(seed)
        assert [kill.signal for kill in kills] == ["SIGKILL", "SIGTERM", "SIGKILL"]
        assert sorted({kill.after for kill in kills}) == [kill.after for kill in kills]
        assert all(3 < kill.after < 29 for kill in kills)


@pytest.mark.parametrize("lengths", [(1, 2), (1, 4), (2, 1), (1, 30), (0, 30), (5, 0)])
def test_a_kill_comes_only_where_something_is_left_to_resume(lengths):
    runs, every = dict(zip("ab", lengths)), save_interval(max(lengths))
    for seed in range(10):
        kills = choose_kills(list(runs.items()), 3, random.Random(seed), every=every)
        assert kills and all(0 < kill.after < runs[kill.run] for kill in kills), (seed, kills)


def refusal(command, **settings):
    with pytest.raises(UsageError) as refused:
        prove(
            command, Settings(**{"steps": 6, "kills": 1, "seed": 1, **settings}), environment=environment(), start=Popen
        )
    return str(refused.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kills": 0}, "Settings.kills: without a kill nothing is resumed. Expected a whole number from 1 on, found 0"),
        ({"kills": -1}, "Settings.kills: .* found -1"),
        ({"kills": True}, "Settings.kills: .* found True"),
        ({"kills": 1.5}, r"Settings.kills: .* found 1\.5"),
        ({"steps": 1}, "Settings.steps: .* Expected a whole number from 2 on, found 1"),
        ({"steps": "30"}, "Settings.steps: .* found '30'"),
        ({"workers": 2}, "Settings.workers: .* found 2"),
        ({"workers": (0, -1)}, r"Settings.workers: .* found \(0, -1\)"),
        ({"seed": -1}, "Settings.seed: .* found -1"),
        ({"patience_s": 0}, "Settings.patience_s: .* found 0"),
        ({"patience_s": float("nan")}, "Settings.patience_s: .* found nan"),
    ],
)
def test_settings_that_prove_nothing_are_a_usage_error_before_anything_is_trained(settings, said):
    assert re.search(said, refusal(["no-such-program"], **settings))


@pytest.mark.parametrize("command", [[], "python train.py", ["python", 3], None])
def test_what_is_no_list_of_words_is_no_command(command):
    assert "the command is not a list of words" in refusal(command)


def test_runs_of_one_step_each_are_told_that_there_is_nothing_to_resume_in_any_of_them(tmp_path):
    command = put("two_runs", tmp_path)
    loop = tmp_path / "loop.py"
    loop.write_text(loop.read_text().replace("Points()", "Points(8)"))
    assert "no run of the command has more than 1 step: there is nothing to resume" in refusal(command)


def test_a_proof_whose_kills_do_not_come_says_so_and_names_no_cause(tmp_path):
    command = put("sound", tmp_path)
    loop = tmp_path / "loop.py"
    shielded = "import os\n\nos.kill = lambda *_: None  # as a process that no signal reaches\n"
    loop.write_text(shielded + loop.read_text().replace("workers=1", "workers=0"))
    proof = prove(command, Settings(steps=4, kills=1, seed=1, workers=()), environment=environment(), start=Popen)
    assert not proof.exact and not proof.likely
    assert proof.lines[-1] == "no kill came before the end of the training, so nothing is proved of a resume"


def test_each_further_try_names_the_loader_workers_that_it_was_made_with(tmp_path):
    command = put("process_in_workers", tmp_path)
    loop = tmp_path / "loop.py"
    loop.write_text(loop.read_text().replace("workers=2", "workers=0"))
    settings = Settings(steps=6, kills=1, seed=3, hash_seeds=False)
    proof = prove(command, settings, environment=environment(), start=Popen)
    assert not proof.exact
    tries = [line.partition(":")[0] for line in proof.lines if line.startswith("tried ")]
    kill = re.search(r"2 loader workers and (1 kill \(.*?\)): \d+ of", " ".join(proof.lines))
    assert kill and tries == ["tried in peace once more (2 loader workers)", "tried both without loader workers"]
    assert [how for how, _ in proof.compared][2:] == [
        f"with 2 loader workers and {kill[1]}",
        *(line.removeprefix("tried ") for line in tries),
    ]


STREAMED = """
import torch
from planted import PLACE, adam, learn, net

from unbroken.train import open_run


class Rows(torch.utils.data.IterableDataset):
    def __iter__(self):
        for number in range(48):
            yield torch.full((6,), number / 48), number % 3


if __name__ == "__main__":
    with open_run(PLACE, tag="t") as run:
        model = net()
        optimizer = adam(model)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(torch.utils.data.DataLoader(Rows(), batch_size=8), epochs=2):
            run.log(loss=learn(model, optimizer, x, y))
"""


def test_numbers_of_workers_that_have_no_effect_on_a_stream_are_said_and_not_counted_as_proved(tmp_path):
    command = put("sound", tmp_path)
    (tmp_path / "loop.py").write_text(STREAMED)
    proof = prove(
        command,
        Settings(steps=6, kills=1, seed=3, workers=(0, 1)),
        environment=environment(),
        start=partial(Popen, cwd=tmp_path),
    )
    assert proof.exact, proof.lines
    assert "the loop draws its own batches or reads a stream: numbers of loader workers are not tried" in proof.lines
    assert [how for how, _ in proof.compared if "loader workers" in how] == []


def test_a_command_that_opens_no_run_is_told_so():
    said = refusal(python("-c", "print('nothing to see')"))
    assert "the command ended (exit code 0) without opening a run; its last words:\n  nothing to see" in said


def test_a_command_that_fails_is_shown_its_own_last_words():
    said = refusal(python("-c", "raise SystemExit('no such data')"))
    assert "in peace, the command ends with exit code 1 after 0 steps; its last words:\n  no such data" in said


def test_a_command_that_asks_for_input_gets_none():
    assert "the command asks for input after 0 steps" in refusal(python("-c", "input('which? ')"))


def test_a_command_that_is_none_is_a_usage_error():
    assert "the command cannot be started (No such file or directory)" in refusal(["no-such-program"])


def test_a_training_that_hangs_is_ended_and_said_to_hang(tmp_path):
    said = refusal(put("hangs", tmp_path), patience_s=4.0)
    assert "the command hangs after 2 steps: it prints and records nothing" in said


def test_what_a_session_leaves_running_ends_with_it(tmp_path):
    number = tmp_path / "number"
    child = "import subprocess, sys, pathlib; p = subprocess.Popen(['sleep', '600']); "
    refusal(python("-c", f"{child} pathlib.Path({str(number)!r}).write_text(str(p.pid))"))
    left, give_up = Path(f"/proc/{number.read_text()}/stat"), time.monotonic() + 20
    while left.exists() and left.read_text().split()[2] != "Z" and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not left.exists() or left.read_text().split()[2] == "Z"


def test_the_command_line_says_the_proof_as_data_and_by_its_exit_code(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--steps", "6", "--kills", "1", "--seed", "3", "--workers", "", "--json"]
    assert main(["prove", *options, "--", *put("named_by_time", tmp_path)]) == 15
    told = json.loads(capfd.readouterr().out)
    assert not told["exact"] and told["seed"] == 3 and told["scratch"] is None and told["compared"] == []
    assert "nothing is ever resumed" in told["likely"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "what to prove is missing"),
        (["--workers", "two", "x"], "--workers: this is no list of numbers"),
        (["--kills", "0", "x"], "a whole number, 1 or more"),
        (["--steps", "1", "x"], "a whole number, 2 or more"),
        (["--patience", "soon", "x"], "--patience"),
    ],
)
def test_a_mistyped_proof_is_a_usage_error(words, said, capsys):
    assert main(["prove", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_no_proof_has_set_is_no_trial(tmp_path):
    command = put("sound", tmp_path)
    for text in ("yes", "{}", '{"place": 3}', '{"place": "x", "until": 1, "save_every": 1, "signal": "SIGSTOP"}'):
        done = run_command(command, env=environment(UNBROKEN_PROVE=text), cwd=tmp_path)
        assert done.returncode == 2 and "only `unbroken prove` sets this" in done.stdout + done.stderr
    assert not (tmp_path / "output").exists()


def test_a_trial_is_itself_again_from_the_environment():
    from unbroken.launch.host import trial_of

    trial = Trial(place="p", until=3, save_every=2, workers=0, run="r", after=2, signal="SIGTERM", share=0.5)
    assert trial_of(trial.as_text()) == trial
    assert trial_of("") is None
    for garbled in ("{", "[" * 100_000, trial.as_text().replace("{", '{"until": 4, ', 1)):
        with pytest.raises(UsageError, match="only `unbroken prove` sets this"):
            trial_of(garbled)
