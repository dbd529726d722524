"""What people bring from other programs: recognised by name, never called damaged, and what works is said."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unbroken import foreign_files as made
from tests.unbroken.cli.typing_commands import Type, typing

FILES: dict[str, tuple[str, Callable[[Path], None], str, dict[str, object]]] = {
    "lightning": ("last.ckpt", made.lightning, "Lightning checkpoint", {"step": 3, "epoch": 1}),
    "lightning, weights": ("w.ckpt", partial(made.lightning, full=False), "Lightning weights", {"step": 3}),
    "timm": ("checkpoint-3.pth.tar", made.timm, "timm checkpoint", {"epoch": 3, "metrics": {"metric": 71.2}}),
    "ultralytics": ("last.pt", made.ultralytics, "ultralytics checkpoint", {"epoch": 3}),
    "ultralytics, finished": ("best.pt", partial(made.ultralytics, full=False), "ultralytics weights", {"epoch": None}),
}
PROMISES = ("download", "copy the file again", "copy it again", "damaged")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


def promises_nothing_false(text: str) -> bool:
    text = text.replace("damaged or foreign files", "")  # the meaning of exit code 12
    return not any(promise in text.lower() for promise in PROMISES)


# -- inspect


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_file_of_another_program_is_named_with_what_it_is_good_for(
    there: Path, type_: Type, file: tuple[str, Callable[[Path], None], str, dict[str, object]]
) -> None:
    name, write, kind, facts = file
    write(there / name)
    answer = type_("inspect", name, "--no-tensors")
    assert answer.code == 0 and answer.out.startswith(f"{name}: {kind} (torch zip, ")
    assert "not a training state, because " in answer.out and promises_nothing_false(answer.out)
    data = type_("inspect", name, "--json").data
    assert data["kind"] == kind and {key: data[key] for key in facts} == facts
    if kind.endswith("checkpoint"):
        assert "optimizer: 2 parameters with state (step, exp_avg, exp_avg_sq)" in answer.out
    verdict = type_("verify", name)
    assert verdict.code == 0 and verdict.out.endswith("all 1 are whole\n")


PARTS = {
    "optimizer.pt": "optimizer state",
    "scheduler.pt": "schedule state",
    "rng_state.pth": "random states",
    "training_args.bin": "pickled object (argparse.Namespace)",
    "model.safetensors": "plain state_dict",
}


def test_the_parts_of_a_folder_of_hugging_faces_trainer_are_told_apart(there: Path, type_: Type) -> None:
    made.hugging_face_trainer(there / "checkpoint-2")
    for name, kind in PARTS.items():
        assert type_("inspect", f"checkpoint-2/{name}").out.startswith(f"checkpoint-2/{name}: {kind} (")
    made.accelerate(there / "state")
    assert type_("inspect", "state/random_states_0.pkl").out.startswith("state/random_states_0.pkl: random states (")


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "shards": (made.hugging_face_shards, "Hugging Face weights in shards"),
    "trainer": (made.hugging_face_trainer, "Hugging Face Trainer checkpoint"),
    "accelerate": (made.accelerate, "Accelerate checkpoint"),
    "dcp": (made.distributed, "distributed checkpoint of torch (DCP)"),
    "deepspeed": (made.deepspeed, "DeepSpeed checkpoints"),
    "deepspeed/global_step3": (lambda folder: made.deepspeed(folder.parent), "DeepSpeed checkpoint"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_another_program_is_named_with_its_files(there: Path, type_: Type, name: str) -> None:
    write, kind = FOLDERS[name]
    write(there / name)
    answer = type_("inspect", name)
    assert answer.code == 0 and answer.out.startswith(f"{name}: {kind} ("), answer.err
    assert "not a training state, because " in answer.out and promises_nothing_false(answer.out)
    data = type_("inspect", name, "--json").data
    assert data["kind"] == kind and data["files"]
    assert all((there / name / file).is_file() for file in data["files"])


def test_a_folder_that_is_none_of_these_is_asked_about_a_run(there: Path, type_: Type) -> None:
    (there / "empty").mkdir()
    answer = type_("inspect", "empty")
    assert answer.code == 2 and "unbroken show empty" in answer.err


def test_an_index_says_which_shards_there_are_and_a_shard_that_it_is_one(there: Path, type_: Type) -> None:
    made.hugging_face_shards(there / "model")
    index, shard = "model/model.safetensors.index.json", "model/model-00002-of-00003.safetensors"
    assert "Hugging Face index of shards (6 tensors in 3 files)" in type_("inspect", index).out
    assert "shard 2 of 3" in type_("inspect", shard).out
    (there / shard).unlink()
    answer = type_("inspect", index)
    assert re.search(r"model-00002-of-00003.safetensors +2 +missing", answer.out)
    assert type_("inspect", index, "--json").data["missing"] == ["model-00002-of-00003.safetensors"]
    Path(index).write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}), "utf-8")
    answer = type_("inspect", index)
    assert answer.code == 12 and "names a file outside its folder" in answer.err


OTHER_KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "script.pt": (made.torchscript, "a TorchScript program"),
    "exported.pt2": (made.exported, "a torch.export program"),
    "arrays.npz": (made.numpy_archive, "a zip file"),
    "array.pth": (made.numpy_array, "a numpy array"),
    "state.pth": (made.bare_pickle, "a bare pickle (dict with epoch, weights)"),
    "model.tar": (made.tar, "a tar file"),
    "model.h5": (made.beginning(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
    "model.gguf": (made.beginning(b"GGUF\x03\0\0\0"), "a GGUF file"),
    "model.onnx": (made.beginning(b"\x08\x08\x12\x07pytorch\x1a\x051.9.0"), "an ONNX file"),
    "model.tflite": (made.beginning(b"\x1c\0\0\0TFL3"), "a TensorFlow Lite file"),
    "model.pth.gz": (made.beginning(b"\x1f\x8b\x08\0"), "a gzip file"),
    "model.zst": (made.beginning(b"\x28\xb5\x2f\xfd"), "a zstandard file"),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_a_sound_file_of_another_kind_is_no_training_state_and_not_damaged(there: Path, type_: Type, name: str) -> None:
    write, kind = OTHER_KINDS[name]
    write(there / name)
    answer = type_("inspect", name)
    assert answer.code == 12 and f"{name}: not a training state, because this is {kind}" in answer.err
    assert promises_nothing_false(answer.err)
    assert type_("inspect", name, "--json").data["error"] == "ForeignFile"
    verdict = type_("verify", name)
    assert verdict.code == 12 and "nothing could be judged" in verdict.out and promises_nothing_false(verdict.out)
    assert type_("verify", name, "--json").data[0]["state"] == "foreign"


@pytest.mark.parametrize("name", ["run.tar", "my run.tar.gz", "run.tgz", "run.zip"])
def test_an_archive_is_said_to_be_one_with_the_command_that_takes_it_apart(there: Path, type_: Type, name: str) -> None:
    (there / "run").mkdir()
    (there / "run/iter_5.pth").write_bytes(b"x")
    if name.endswith("zip"):
        with zipfile.ZipFile(name, "w") as archive:
            archive.write("run/iter_5.pth")
    else:
        with tarfile.open(name, "w:gz" if "gz" in name else "w") as packed:
            packed.add("run")
    quoted, module = f"'{name}'" if " " in name else name, "zipfile" if name.endswith("zip") else "tarfile"
    command = f"python -m {module} -e {quoted} DIR"
    assert command in type_("inspect", name).err
    shutil.rmtree("run")
    assert subprocess.run([sys.executable, *shlex.split(command)[1:]], check=False).returncode == 0
    assert (there / "DIR/run/iter_5.pth").read_bytes() == b"x"


def test_what_was_cut_off_or_never_downloaded_is_damaged_all_the_same(there: Path, type_: Type) -> None:
    made.lightning(there / "last.ckpt")
    whole = (there / "last.ckpt").read_bytes()
    (there / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (there / "flipped.ckpt").write_bytes(whole.replace(b"data.pkl", b"dota.pkl"))
    (there / "page.pth").write_text("<!DOCTYPE html><p>sign in", "utf-8")
    (there / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n", "utf-8")
    for name in ("cut.ckpt", "flipped.ckpt", "page.pth", "pointer.pth"):
        assert type_("inspect", name, "--json").data["error"] == "DamagedFile"
        assert type_("verify", name, "--json").data[0]["state"] == "damaged"


# -- verify


def test_a_verdict_covers_every_checkpoint_in_a_folder(there: Path, type_: Type) -> None:
    for name in ("a.pth", "b.pt", "c.bin", "d.ckpt", "deep/er/e.pt"):
        (there / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(nn.Linear(2, 1).state_dict(), there / "mine" / name)
    made.safetensors(there / "mine/f.safetensors")
    made.lightning(there / "mine/g.pth.tar")
    answer = type_("verify", "mine")
    assert answer.code == 0 and answer.out.endswith("all 7 are whole\n")
    for name in ("b.pt", "c.bin", "d.ckpt", "deep/er/e.pt", "f.safetensors", "g.pth.tar"):
        file = there / "mine" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-5])
        answer = type_("verify", "mine")
        assert answer.code == 12 and "1 of 7 cannot be used" in answer.out, name
        assert {Path(row["file"]).name: row["state"] for row in type_("verify", "mine", "--json").data}[
            file.name
        ] == "damaged"
        file.write_bytes(whole)


def test_the_random_states_of_accelerate_and_names_in_capitals_are_judged_too(there: Path, type_: Type) -> None:
    made.accelerate(there / "state")
    torch.save(nn.Linear(2, 1).state_dict(), there / "state/LAST.PTH")
    assert type_("verify", "state").out.endswith("all 5 are whole\n")
    for name in ("random_states_0.pkl", "LAST.PTH"):
        file = there / "state" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-9])
        assert type_("verify", "state").code == 12, name
        file.write_bytes(whole)


def test_what_was_not_judged_is_named_and_never_called_whole(there: Path, type_: Type) -> None:
    torch.save(nn.Linear(2, 1).state_dict(), there / "a.pth")
    made.torchscript(there / "script.pt")
    (there / "points.bin").write_bytes(bytes(range(200)))
    answer = type_("verify", ".")
    assert (
        answer.code == 0 and "1 of 3 are whole; 2 of other kinds were not judged: points.bin, script.pt" in answer.out
    )
    made.distributed(there / "dcp")
    answer = type_("verify", "dcp")
    assert answer.code == 12 and "nothing could be judged" in answer.out
    assert ".metadata" in answer.out and "__0_0.distcp" in answer.out


def test_a_shard_that_an_index_names_and_is_not_there_is_missing(there: Path, type_: Type) -> None:
    made.hugging_face_shards(there / "model")
    assert type_("verify", "model").out.endswith("all 3 are whole\n")
    (there / "model/model-00003-of-00003.safetensors").unlink()
    answer = type_("verify", "model")
    assert answer.code == 12 and "missing" in answer.out
    assert "not here, though model.safetensors.index.json records it" in answer.out


def test_in_a_run_too_every_checkpoint_is_judged_and_the_archive_is_named(here: Path, type_: Type) -> None:
    run = Path("work_dirs/small")
    assert type_("verify", run).out.endswith("all 2 are whole\n")
    torch.save(nn.Linear(2, 1).state_dict(), run / "exported.pt")
    (run / "archive/old").mkdir(parents=True)
    (run / "archive/old/iter_1.pth").write_bytes(b"PK cut off")
    answer = type_("verify", run)
    assert answer.code == 0 and "all 3 are whole; 1 in archive/, moved aside, was not read" in answer.out
    (run / "exported.pt").write_bytes((run / "exported.pt").read_bytes()[:-9])
    answer = type_("verify", run)
    assert answer.code == 12 and "1 of 3 cannot be used" in answer.out


# -- train


def test_a_launch_says_the_same_of_what_it_is_given(here: Path, type_: Type) -> None:
    made.lightning(here / "last.ckpt")
    made.torchscript(here / "script.pt")
    train = ["train", "mapsage", "small.py"]
    answer = type_(*train, "--ckpt", "last.ckpt")
    assert (
        answer.code == 10 and "last.ckpt is not a training state, because it is a file of another program" in answer.err
    )
    assert "(Lightning checkpoint)" in answer.err and promises_nothing_false(answer.err)
    for words in (["--ckpt", "script.pt"], ["--tag", "new", "--pretrained_model", "script.pt"]):
        answer = type_(*train, *words)
        assert answer.code == 12 and "script.pt is not a training state, because this is a TorchScript" in answer.err
        assert promises_nothing_false(answer.err)
    state = torch.load("work_dirs/small/iter_4.pth", weights_only=True)["state_dict"]
    optimizer = {"state": {}, "param_groups": []}
    tree = {"pytorch-lightning_version": "2.6.6", "state_dict": state, "optimizer_states": [optimizer]}
    torch.save(tree, "own.ckpt")
    answer = type_(*train, "--tag", "new", "--pretrained_model", "own.ckpt")
    assert answer.code == 0 and "124 of 124 tensors loaded" in answer.out


@pytest.mark.parametrize("name", FOLDERS)
def test_a_launch_that_is_given_such_a_folder_says_whose_it_is(here: Path, type_: Type, name: str) -> None:
    write, kind = FOLDERS[name]
    write(here / name)
    for words in (["--ckpt", name], ["--tag", "new", "--pretrained_model", name]):
        answer = type_("train", "mapsage", "small.py", *words)
        assert answer.code == 12 and f"{name}: not a training state, because it is a {kind}: " in answer.err
        assert promises_nothing_false(answer.err)


def test_an_index_of_shards_is_no_file_to_begin_with(here: Path, type_: Type) -> None:
    made.hugging_face_shards(here / "model")
    words = ["--tag", "new", "--pretrained_model", "model/model.safetensors.index.json"]
    answer = type_("train", "mapsage", "small.py", *words)
    assert answer.code == 12 and "not a training state, because this is a JSON file" in answer.err


def test_a_foreign_file_in_a_runs_folder_is_no_lost_history(here: Path, type_: Type) -> None:
    made.torchscript(here / "work_dirs/small/iter_9.pth")
    answer = type_("train", "mapsage", "small.py")
    assert answer.code == 0 and "iter_4.pth has the furthest recorded step of this run (4)" in answer.out
    assert promises_nothing_false(answer.out)
    assert list((here / "work_dirs/small").rglob("iter_9.pth"))  # kept, aside: a later save may have its name
