"""Frames, infos and databases that cannot be used: an error that names them, before or while training, or a skip."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from focalsst.dataset.infos import read_infos, write_infos
from tests.focalsst.nano_job import BATCH, CONFIG, FRAMES, events, frame, job, session, steps, write_nano_job
from tests.unbroken.cli.typing_commands import process
from unbroken.errors import DamagedFile, UnbrokenError, UsageError
from unbroken.train import differences, read_checkpoint

MIDDLE = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_nano_job(folder, pasting=True)
    return folder


@pytest.fixture
def root(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("data/sonar")


def change(file: Path, edit: Callable[[np.ndarray], None]) -> None:
    points = np.fromfile(file, "<f4").reshape(-1, 5)
    edit(points)
    points.tofile(file)


def with_nan(file: Path) -> None:
    change(file, lambda points: points[17].__setitem__(1, np.nan))


def far_away(file: Path) -> None:
    change(file, lambda points: points[:, 0].__iadd__(1000.0))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def gone(file: Path) -> None:
    file.unlink()


UNREADABLE = [
    (with_nan, r"point 18 is not a number. Found \[.*nan"),
    (empty, r"the file of points is empty. Copy the file again"),
    (far_away, r"not one of the 600 points lies in the range. Expected points within \[0\.0, -8\.25, -6\.0\] to"),
    (truncated, r"truncated. Expected a multiple of 20 bytes .*, found 11993 bytes"),
    (a_folder, r"the points cannot be read. Found a folder, not an ordinary file. Copy the file again"),
]


def plain(*options: object) -> list[object]:
    """Without pasting, so that what is wrong is the frame itself."""
    return [*options, "--set", "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST", "[]"]


@pytest.mark.parametrize(("spoil", "said"), UNREADABLE)
def test_the_first_frame_is_found_before_the_first_step(root: Path, spoil: Callable[[Path], None], said: str) -> None:
    for split in ("val", "train"):  # the training frames are read first
        spoil(file := frame(root, 0, split))
        asked = job("--workers", 0)
        with pytest.raises(DamagedFile, match=said) as bad:
            session(asked)
        assert str(bad.value).startswith(f"{file}: ")
        assert str(bad.value).endswith("--on-bad-sample skip")
        assert not (asked.directory / "unbroken" / "run.json").exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("spoil", "said"), UNREADABLE[:1] + UNREADABLE[-1:])
def test_a_frame_in_mid_epoch_ends_the_training_with_its_file_and_no_trace(
    root: Path, spoil: Callable[[Path], None], said: str, workers: int
) -> None:
    spoil(file := frame(root, MIDDLE))
    with pytest.raises(DamagedFile, match=said) as bad:
        session(job("--workers", workers))
    assert str(bad.value).startswith(f"{file}: ")
    assert "--on-bad-sample skip" in str(bad.value)


def test_the_command_ends_with_the_exit_code_of_damage_and_without_a_trace(root: Path) -> None:
    with_nan(file := frame(root, MIDDLE))
    ended = process("train", "focalsst", "--cfg_file", CONFIG, "--workers", 2)
    assert ended.code == 12, ended.err
    assert f"{file}: point 18 is not a number" in ended.out + ended.err
    assert "Traceback" not in ended.out + ended.err


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_frames_are_skipped_on_request_counted_and_recorded(root: Path, workers: int) -> None:
    spoiled = {0: with_nan, 2: empty, 3: far_away, 5: truncated, 8: gone}
    for index, spoil in spoiled.items():
        spoil(frame(root, index))
    gone(frame(root, 1, "val"))
    asked = job("--workers", workers, "--on-bad-frame", "skip")

    code, said = session(asked, pictures=3)

    assert code == 0, said
    for epoch in (0, 1):
        used = [sample for line in steps(asked.directory) if line["epoch"] == epoch for sample in line["samples"]]
        assert sorted(used) == sorted(set(range(FRAMES)) - set(spoiled))
        skipped = [event["sample"] for event in events(asked.directory, "skipped") if event["epoch"] == epoch]
        assert sorted(skipped) == sorted(spoiled)
    assert all(str(frame(root, event["sample"])) in event["reason"] for event in events(asked.directory, "skipped"))
    assert "10 times a sample that cannot be read was left out" in said
    assert f"skipped in evaluation: {frame(root, 1, 'val')}: the points cannot be read" in said
    saved = read_checkpoint(asked.directory / "ckpt" / "checkpoint_epoch_2.pth")["unbroken"]
    assert saved["skipped"] == 10


def test_a_stop_among_skipped_frames_changes_no_bit(root: Path) -> None:
    for index in (1, 3, 4):
        with_nan(frame(root, index))
    skip = ["--on-bad-frame", "skip"]
    one, cut = (job("--workers", 0, "--output", name, *skip) for name in ("one", "cut"))
    assert session(one)[0] == 0
    assert session(cut, stop_at=2)[0] == 75
    assert session(job("--workers", 2, "--output", "cut", *skip), stop_at=4)[0] == 75
    assert session(cut)[0] == 0
    files = [asked.directory / "ckpt" / "checkpoint_epoch_2.pth" for asked in (one, cut)]
    assert differences(*map(read_checkpoint, files)) == []


def test_a_batch_of_which_nothing_can_be_read_is_none_and_the_end_is_still_the_end(root: Path) -> None:
    """There are fewer steps than the config promised, and the last is evaluated and kept all the same."""
    clean = job("--workers", 0, "--tag", "clean", "--eval_interval", 0)
    assert session(clean)[0] == 0
    first = [line["samples"] for line in steps(clean.directory) if line["epoch"] == 1][1]
    for index in first:
        with_nan(frame(root, index))
    words = ["--workers", 0, "--tag", "bad", "--eval_interval", 0, "--on-bad-frame", "skip", "--ckpt_save_interval", 5]
    asked = job(*words)
    assert session(asked)[0] == 0
    assert len(steps(asked.directory)) < len(steps(clean.directory))
    assert len(events(asked.directory, "evaluated")) == len(events(clean.directory, "evaluated")) == 1
    assert (asked.directory / "ckpt" / "checkpoint_epoch_2.pth").exists()
    code, said = session(job(*words))
    assert code == 0 and "FINISHED" in said, said


def test_when_nothing_can_be_read_skipping_ends_as_well(root: Path) -> None:
    for index in range(FRAMES):
        empty(frame(root, index))
    with pytest.raises(DamagedFile, match=rf"not one of its {FRAMES} samples can be read"):
        session(job("--workers", 0, "--on-bad-frame", "skip"))


def test_when_no_frame_can_be_judged_by_the_evaluation_says_so(root: Path) -> None:
    for index in range(5):
        empty(frame(root, index, "val"))
    with pytest.raises(DamagedFile, match="data/sonar: not one of the 5 frames to evaluate can be read"):
        session(job("--workers", 0, "--on-bad-frame", "skip"))


def test_missing_files_of_points_are_counted_before_training(root: Path) -> None:
    for index in (2, 5):
        gone(frame(root, index))
    names = f"{frame(root, 2).stem}, {frame(root, 5).stem}"
    with pytest.raises(UsageError, match=rf"2 of {FRAMES} frames have no file .* none for {names}") as missing:
        session(job("--workers", 0))
    assert "python convert.py points data/sonar" in str(missing.value)
    shutil.rmtree(root / "points")
    with pytest.raises(UsageError, match=r"Copy them from their source.*--on-bad-sample skip"):
        session(job("--workers", 0))
    shutil.rmtree(root / "points_binary")
    with pytest.raises(UsageError, match=rf"{FRAMES} of {FRAMES} frames have no file of points"):
        session(job("--workers", 0, "--on-bad-frame", "skip"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_while_training(root: Path, workers: int) -> None:
    """The first epoch has it, then it is gone: an error, or from then on a skip, also of the sessions after."""
    asked = job("--workers", workers)
    assert session(asked, stop_at=-(-FRAMES // BATCH))[0] == 75
    gone(file := frame(root, MIDDLE))
    with pytest.raises(UsageError, match=f"none for {file.stem}"):
        session(asked)
    code, said = session(job("--workers", workers, "--on-bad-frame", "skip"))
    assert code == 0
    assert "exactness starts anew here" in said
    assert [(event["epoch"], event["sample"]) for event in events(asked.directory, "skipped")] == [(1, MIDDLE)]


# -- infos -------------------------------------------------------------------------------------------------------------


def rename_object(root: Path, index: int, name: str) -> None:
    infos = list(read_infos(root / "sonar_infos_train.npz"))
    infos[index] = replace(infos[index], names=(name, *infos[index].names[1:]))
    write_infos(root / "sonar_infos_train.npz", infos)


@pytest.mark.parametrize("index", [0, MIDDLE])
def test_an_object_of_an_unknown_class_is_not_lost_in_silence(root: Path, index: int) -> None:
    rename_object(root, index, "Bxo")
    with pytest.raises(DamagedFile) as bad:
        session(job("--workers", 0))
    assert str(bad.value) == (
        f"data/sonar/sonar_infos_train.npz: frame {frame(root, index).stem} has an object of an unknown class. "
        "Expected Box or Diver, found 'Bxo'. Correct the name in the infos, or add the class to CLASS_NAMES."
    )
    asked = job(*plain("--workers", 0, "--on-bad-frame", "skip"))
    assert session(asked)[0] == 0
    assert {event["sample"] for event in events(asked.directory, "skipped")} == {index}


def test_objects_of_a_known_class_that_is_not_trained_are_left_out_without_complaint(root: Path) -> None:
    only = ["CLASS_NAMES", "['Box']", "DATA_CONFIG.MAP_CLASS_TO_KITTI", "{'Box': 'Car'}"]
    asked = job(*plain("--workers", 0), *only)
    assert session(asked)[0] == 0


def test_a_frame_that_the_infos_do_not_know(root: Path) -> None:
    infos = read_infos(root / "sonar_infos_train.npz")
    write_infos(root / "sonar_infos_train.npz", infos[:-1])
    with pytest.raises(UsageError) as missing:
        session(job("--workers", 0))
    said = str(missing.value)
    assert said.startswith("data/sonar/sonar_infos_train.npz: the infos are of another split. Expected the 9 frames of")
    assert f"1 missing ({infos[-1].frame})" in said
    assert "ImageSets/train.txt" in said and "INFO_PATH" in said


def test_infos_that_are_not_there(root: Path) -> None:
    (root / "sonar_infos_val.npz").unlink()
    with pytest.raises(UsageError, match=r"sonar_infos_val.npz: there is no such file of infos. Check"):
        session(job("--workers", 0))


# -- the original's pickles --------------------------------------------------------------------------------------------


def pickled(root: Path, split: str, **more: object) -> Path:
    """Infos in the form of the original, with arrays of numpy."""
    rows = [
        {
            "point_cloud": {"num_features": 4, "lidar_idx": known.frame},
            "annos": {
                "name": np.array(known.names),
                "gt_boxes_lidar": np.array(known.boxes, np.float64),
                "difficulty": np.zeros(len(known.names), np.int32),
            },
            **more,
        }
        for known in read_infos(root / f"sonar_infos_{split}.npz")
    ]
    path = root / f"sonar_infos_{split}.pkl"
    path.write_bytes(pickle.dumps(rows, protocol=4))
    return path


INFO_PATH = ["DATA_CONFIG.INFO_PATH.train", "sonar_infos_train.pkl", "DATA_CONFIG.INFO_PATH.test"]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in steps(run)]


def test_pickled_infos_of_the_original_train_directly_and_as_those_in_npz(root: Path) -> None:
    first = job("--workers", 0, "--tag", "npz")
    assert session(first)[0] == 0
    for split in ("train", "val"):
        pickled(root, split)
        (root / f"sonar_infos_{split}.npz").unlink()
    second = job("--workers", 0, "--tag", "pkl", "--set", *INFO_PATH, "sonar_infos_val.pkl")
    assert session(second)[0] == 0
    assert losses(second.directory) == losses(first.directory)
    third = job("--workers", 0, "--tag", "named npz")  # the name of the npz, and the pickle beside where it was
    assert session(third)[0] == 0
    assert losses(third.directory) == losses(first.directory)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, ("harmed",)


def test_a_pickle_with_a_foreign_global_is_refused_and_nothing_of_it_runs(root: Path) -> None:
    file = pickled(root, "train", extra=Harmful())
    with pytest.raises(DamagedFile, match=r"sonar_infos_train.pkl: .*found (posix|os)\.mkdir") as bad:
        session(job("--workers", 0, "--set", *INFO_PATH, "sonar_infos_val.npz"))
    assert bad.value.exit_code == 12 and str(file) in str(bad.value)
    assert "Nothing in it was executed" in str(bad.value)
    assert not Path("harmed").exists()


# -- the database of objects -------------------------------------------------------------------------------------------


def test_an_object_that_is_missing_is_found_before_training_and_the_command_repairs_it(root: Path) -> None:
    file = sorted((root / "gt_database").glob("*_Box_0.bin"))[3]
    file.write_bytes(file.read_bytes()[:-16])
    with pytest.raises(DamagedFile, match=r"the object is missing or truncated. Expected \d+ points") as bad:
        session(job("--workers", 0, "--on-bad-frame", "skip"))
    assert str(bad.value).startswith(f"{file}: ")
    assert str(bad.value).endswith("Write the database again: python convert.py database data/sonar")
    from focalsst.conversion import main as convert

    assert convert(["database", str(root)]) == 0
    assert session(job("--workers", 0, "--epochs", 1))[0] == 0


def test_no_database_at_all_says_how_it_is_made(root: Path) -> None:
    (root / "sonar_dbinfos_train.npz").unlink()
    with pytest.raises(UsageError) as missing:
        session(job("--workers", 0))
    assert str(missing.value).endswith("Write it once: python convert.py database data/sonar")


def test_no_message_to_a_user_names_a_function_of_ours() -> None:
    sources = (Path(__file__).parents[2] / "apps" / "focal_sst" / "focalsst").rglob("*.py")
    functions = ("`write_database`", "`convert_points`")
    texts = {path: path.read_text("utf-8") for path in sources}
    found = [
        f"{path.name}: {line.strip()}"
        for path, text in texts.items()
        for line in text.splitlines()
        if any(name in line for name in functions) and ("do=" in line or "Error(" in line)
    ]
    assert not found, json.dumps(found, indent=1)


def test_every_error_is_of_the_family(root: Path) -> None:
    """A file of text where infos should be, and a list that names a frame twice."""
    (root / "sonar_infos_train.npz").write_text("no archive")
    with pytest.raises(UnbrokenError, match=r"the infos cannot be read\. Expected a whole npz archive"):
        session(job("--workers", 0))
    shutil.copy(root / "sonar_infos_val.npz", root / "sonar_infos_train.npz")
    with pytest.raises(UnbrokenError, match=r"the infos are of another split\."):
        session(job("--workers", 0))
    lines = (root / "ImageSets" / "train.txt").read_text()
    (root / "ImageSets" / "train.txt").write_text(lines + lines.split()[0])
    with pytest.raises(DamagedFile, match="is listed twice"):
        session(job("--workers", 0))
