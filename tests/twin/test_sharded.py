"""Trainings whose state is sharded over their processes (FSDP2): killed, stopped, resumed by other numbers of them."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.processes import python, run_command
from tests.twin.killing import assert_twins
from tests.twin.together import kill_one, require_ended, run_by_other_numbers, run_together, start
from unbroken.checkpoint.sharded import HEAD
from unbroken.errors import STOPPED
from unbroken.train import read_checkpoint

LOOP = Path(__file__).parent / "loops" / "sharded.py"
LAST = "iter_20.dcp"


def loop(root: Path, *words: object) -> list[str]:
    """The command of the loop."""
    return python(LOOP, root, *words)


def unbroken(*words: object) -> str:
    """What a command prints; it has to succeed."""
    done = run_command(python("-m", "unbroken", *words))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody touched."""
    root = tmp_path_factory.mktemp("trained")
    require_ended(run_together(loop(root), 2), 0)
    return root / "t"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "t", symlinks=True))


ALL = None  # are killed, all of them at once


@pytest.mark.parametrize(
    ("size", "batch", "kind", "strikes"),
    [(2, "12", "evaluated", (signal.SIGKILL, signal.SIGTERM)), (4, "13", "", (signal.SIGKILL, ALL))],
)
def test_processes_with_a_part_of_the_state_each_end_as_if_none_had_been_killed_or_stopped(
    tmp_path: Path, size: int, batch: str, kind: str, strikes: tuple[int | None, ...]
) -> None:
    seed, told = 23, {"BATCH": batch, "KIND": kind}
    print("seed", seed)
    chance = random.Random(seed)
    require_ended(run_together(loop(tmp_path / "peace"), size, **told), 0)
    root, step = tmp_path / "killed", 0
    for number in strikes:
        step += chance.randint(3, 5)
        if number is ALL:
            session = start(loop(root), size, PACE="0.03", **told)
            session.wait_for_step(root / "t", step)
            for process in session.processes:
                process.kill()
            sessions = session.wait()
        else:
            sessions = kill_one(root / "t", loop(root), size, chance, after=step, number=number, PACE="0.03", **told)
        codes = {each.returncode for each in sessions}
        allowed = {STOPPED} if number == signal.SIGTERM else {STOPPED, -signal.SIGKILL}
        assert codes <= allowed, [each.output for each in sessions]
    ended = run_together(loop(root), size, **told)
    require_ended(ended, 0)
    assert ended[1].output == ""  # one process speaks
    assert_twins(root / "t", tmp_path / "peace" / "t", LAST)
    assert "each sample once" in unbroken("audit", root / "t")


def test_other_numbers_of_processes_go_on_from_the_same_folders_with_the_same_samples(tmp_path: Path) -> None:
    run_by_other_numbers(tmp_path, loop)
    assert_twins(tmp_path / "killed" / "t", tmp_path / "peace" / "t", LAST)
    assert "each sample once" in unbroken("audit", tmp_path / "killed" / "t")


def test_sharded_parts_of_unequal_size_train_what_one_whole_process_does_but_for_the_order_of_sums(
    tmp_path: Path,
) -> None:
    require_ended(run_together(loop(tmp_path / "one"), 1, KIND="whole", BATCH="13"), 0)
    whole = read_checkpoint(tmp_path / "one" / "t" / "iter_20.pth")["state_dict"]
    for size in (1, 3):
        require_ended(run_together(loop(tmp_path / str(size)), size, KIND="nothing drawn", BATCH="13"), 0)
        found = read_checkpoint(tmp_path / str(size) / "t" / LAST)["state_dict"]
        for name, tensor in whole.items():
            torch.testing.assert_close(found[name], tensor, rtol=2e-3, atol=2e-4)


def break_shard(run: Path, name: str, how: str) -> str:
    """Do this to a shard of a checkpoint; returns what is said of it."""
    (save,) = (path for path in (run / name).iterdir() if path.is_dir())
    shard = save / "__1_0.distcp"
    match how:
        case "flipped":
            data = bytearray(shard.read_bytes())
            data[len(data) // 2] ^= 1
            shard.write_bytes(data)
            said = "is not what this save wrote"
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-100])
            said = "cut off"
        case "missing":
            shard.unlink()
            said = "is missing"
        case "of another save":
            (other,) = (path for path in (run / "iter_16.dcp").iterdir() if path.is_dir())
            shutil.copy(other / shard.name, shard)
            said = "altered, or of another save"
        case _:
            raise AssertionError(how)
    return f"{save.name}/{shard.name}: " + said if how == "cut" else f"{save.name}/{shard.name} {said}"


@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "of another save"])
def test_a_shard_that_is_not_what_was_saved_is_named_and_the_checkpoint_before_is_used(run: Path, how: str) -> None:
    said = break_shard(run, LAST, how).split(" ")
    found = run_command(python("-m", "unbroken", "verify", run))
    assert found.returncode == 12
    line = next(line for line in found.stdout.splitlines() if LAST in line)
    assert line.startswith("damaged") and all(word in line for word in said), line
    manifest = run / "unbroken" / "manifests" / f"{LAST}.json"
    manifest.unlink()  # the head knows its shards by itself
    ended = run_together(loop(run.parent), 3)
    require_ended(ended, 0)
    assert "at step 17" in ended[0].output and f"damaged: {LAST} - {said[0]}" in ended[0].output, ended[0].output
    assert len([*run.glob(f"archive/*/{LAST}/{HEAD}")]) == 1


@pytest.mark.parametrize("before", ["the head", "a shard", "its loss"])
def test_a_kill_between_the_shards_and_their_head_leaves_no_checkpoint_and_its_rest_goes(
    run: Path, before: str
) -> None:
    (run / LAST / HEAD).unlink()
    if before == "a shard":
        next((run / LAST).glob("*/__1_0.distcp")).unlink()
    if before != "its loss":
        (run / "unbroken" / "manifests" / f"{LAST}.json").unlink()
    plan = run_together(loop(run.parent, 17), 2)
    require_ended(plan, STOPPED)
    assert f"a save was cut off ({LAST}); it never counted" in plan[0].output, plan[0].output
    assert "at step 17" in plan[0].output
    assert not (run / LAST).exists()
    assert len([*run.glob(f"archive/*/{LAST}")]) == (before == "its loss")  # what was whole once may be found again


def test_a_save_that_is_killed_at_any_of_its_requests_to_the_disk_is_whole_or_none(tmp_path: Path) -> None:
    seed = 3
    print("seed", seed)
    chance = random.Random(seed)
    run = tmp_path / "t"
    for attempt in range(4):
        session = start(loop(tmp_path), 2, KIND="evaluated")
        name = run / f"iter_{4 * (attempt + 1)}.dcp"
        while all(process.poll() is None for process in session.processes) and not name.exists():
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.01))
        for process in session.processes:
            process.kill()
        session.wait()
        states = [path for path in run.glob("*.dcp") if (path / HEAD).exists()]
        if states:
            assert f"all {len(states) + len([*run.glob('best_*.pth')])} are whole" in unbroken("verify", run)
    require_ended(run_together(loop(tmp_path), 2, KIND="evaluated"), 0)
    assert not [path for path in run.glob("*.dcp") if not (path / HEAD).exists()]
    assert all(len([*path.iterdir()]) == 2 for path in run.glob("*.dcp"))  # the head, and the shards of one save


def test_a_folder_becomes_one_file_that_torch_opens_and_one_process_goes_on_from(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "exported.pth"
    assert "step 20" in unbroken("export", run, "--to", target)
    alone, whole = torch.load(target, weights_only=True), read_checkpoint(run / LAST)
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(alone["state_dict"][name], tensor)
    assert "good" in unbroken("verify", target)
    other = tmp_path / "other" / "t"
    other.mkdir(parents=True)
    unbroken("export", run / "iter_16.dcp", "--to", other / "iter_16.pth")
    ended = run_together(loop(other.parent), 1, KIND="whole")
    require_ended(ended, 0)
    assert "iter_16.pth has the furthest recorded step" in ended[0].output


def test_of_a_damaged_run_the_file_is_of_the_furthest_whole_folder_and_the_others_are_named(
    run: Path, tmp_path: Path
) -> None:
    shard = min((run / LAST).glob("*/*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-1])
    said = unbroken("export", run, "--to", tmp_path / "exported.pth")
    assert f"not used: {run / LAST}: {shard.parent.name}/{shard.name}: the file is cut off" in said
    assert f"step 16 of {run / 'iter_16.dcp'}" in said


def test_torchs_own_tools_read_the_shards(run: Path, tmp_path: Path) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    (save,) = (path for path in (run / LAST).iterdir() if path.is_dir())
    dcp_to_torch_save(save, tmp_path / "all.pth")
    found, ours = torch.load(tmp_path / "all.pth", weights_only=False), read_checkpoint(run / LAST)
    assert torch.equal(found["states.model.0.weight"], ours["state_dict"]["0.weight"])


def test_whole_and_sharded_sessions_take_over_from_each_other(tmp_path: Path) -> None:
    for kind, size, until in (("whole", 1, 6), ("", 2, 10), ("whole", 1, 14), ("", 3, 20)):
        ended = run_together(loop(tmp_path, *([until] if until < 20 else [])), size, KIND=kind)
        require_ended(ended, STOPPED if until < 20 else 0)
    assert {path.name for path in (tmp_path / "t").glob("iter_*")} >= {"iter_6.pth", "iter_10.dcp", "iter_14.pth", LAST}
    assert "each sample once" in unbroken("audit", tmp_path / "t")


def test_the_best_weights_are_one_plain_file_and_retention_lets_go_of_whole_folders(tmp_path: Path) -> None:
    require_ended(run_together(loop(tmp_path), 2, KIND="evaluated", KEEP="2"), 0)
    run = tmp_path / "t"
    (best,) = run.glob("best_error_iter_*.pth")
    weights = torch.load(best, weights_only=True)["state_dict"]
    assert {name: type(each) for name, each in weights.items()} == dict.fromkeys(weights, torch.Tensor)
    assert {path.name for path in run.glob("*.dcp*")} == {"iter_16.dcp", LAST}


def test_a_run_of_folders_is_packed_backed_up_pruned_pinned_and_brought_back_like_any_other(
    run: Path, tmp_path: Path
) -> None:
    where = tmp_path / "elsewhere"
    unbroken("pack", run, tmp_path / "t.zip")
    unbroken("unpack", tmp_path / "t.zip", where / "unpacked" / "t")
    unbroken("backup", run, where / "backup")
    for each in (where / "unpacked" / "t", where / "backup" / "t"):
        assert "all 5 are whole" in unbroken("verify", each)
    unbroken("pin", run, "4")
    unbroken("prune", run, "--keep-last", "2")
    assert {path.name for path in run.glob("*.dcp")} == {"iter_4.dcp", "iter_16.dcp", LAST}
    assert "step: 20 of 20" in unbroken("show", run)
    unbroken("restore", tmp_path / "again" / "t", "--from", where / "backup" / "t")
    assert "all 5 are whole" in unbroken("verify", tmp_path / "again" / "t")
    (where / "unpacked" / "t" / LAST / HEAD).unlink()
    ended = run_together(loop(tmp_path / "here"), 2, UNBROKEN_SEARCH_PATH=str(where / "unpacked"))
    require_ended(ended, 0)
    assert "holds this run at step 16" in ended[0].output and "it is copied here" in ended[0].output
    text = unbroken("inspect", run / LAST)
    assert "unbroken checkpoint" in text and "optimizer: 6 parameters with state" in text


def test_a_folder_is_named_to_go_on_from_to_begin_with_and_is_backed_up_beside_the_training(
    run: Path, tmp_path: Path
) -> None:
    exact = run_together(loop(run.parent, 10), 2, KIND="ckpt", FILE=str(run / "iter_8.dcp"))
    require_ended(exact, STOPPED)
    assert "at step 9" in exact[0].output and len([*run.glob("archive/*/iter_16.dcp")]) == 1
    tuned = run_together(loop(tmp_path / "tuned", 1), 2, KIND="pretrained_model", FILE=str(run / "iter_8.dcp"))
    require_ended(tuned, STOPPED)
    assert "FINE-TUNE" in tuned[0].output and "6 of 6 tensors" in tuned[0].output, tuned[0].output
    copied = run_together(loop(tmp_path / "source", 5), 3, KIND="backup", FILE=str(tmp_path / "mirror"))
    require_ended(copied, STOPPED)
    assert "all 2 are whole" in unbroken("verify", tmp_path / "mirror" / "t")


def test_a_process_whose_disk_refuses_its_part_is_named_and_all_go_on_to_the_next_save(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND="one disk is full")
    require_ended(sessions, 0)
    assert "SAVE FAILED at step 4: File too large (process 1)" in sessions[0].output
    assert {path.name for path in (tmp_path / "t").glob("*.dcp")} == {"iter_8.dcp", "iter_12.dcp", "iter_16.dcp", LAST}


@pytest.mark.parametrize(
    ("kind", "said"),
    [("batch norm", "running statistics of its own"), ("partly", "adds up the gradients of the rest")],
)
def test_what_cannot_be_sharded_exactly_is_refused_by_name_before_the_first_step(
    tmp_path: Path, kind: str, said: str
) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND=kind)
    require_ended(sessions, 2)
    assert said in sessions[0].output
    assert not (tmp_path / "t" / "unbroken" / "run.json").exists()


@pytest.mark.parametrize(("kind", "part"), [("momentum of a part", "optimizer"), ("schedule of a loss", "scheduler")])
def test_a_state_that_each_process_has_of_its_own_is_named_at_the_first_save(
    tmp_path: Path, kind: str, part: str
) -> None:
    """A head holds what rank 0 has: the others would go on with that, and nobody would hear of it."""
    sessions = run_together(loop(tmp_path), 2, KIND=kind)
    require_ended(sessions, 2)
    assert f"run.track({part}=...): what is not sharded of its state is other in process 1" in sessions[0].output
    assert not [*(tmp_path / "t").glob("*.dcp")]
