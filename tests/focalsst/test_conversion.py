"""The command `convert.py` as a process: what it makes, what it refuses, and that it can be killed and repeated."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import sys
import time
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from rich.console import Console

from focalsst.conversion import _shown, main
from focalsst.dataset.database import read_database
from focalsst.dataset.infos import read_infos
from focalsst.dataset.points import read_points, write_points
from focalsst.samples import write_sample_data
from tests.focalsst.original_infos import originals_infos
from tests.processes import DEVNULL, Popen, environment, run_command

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "apps" / "focal_sst" / "convert.py"
ENVIRONMENT = environment(COLUMNS="80")


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("sonar")
    write_sample_data(root, train=12, val=4, points=400)
    return root


@pytest.fixture
def data(tmp_path, sample_data):
    """Sample data as a user of the original has it: text points and pickled infos."""
    shutil.copytree(sample_data, tmp_path / "sonar", ignore=shutil.ignore_patterns("points_binary", "*.json"))
    for split in ("train", "val"):
        npz = tmp_path / "sonar" / f"sonar_infos_{split}.npz"
        npz.with_suffix(".pkl").write_bytes(originals_infos(read_infos(npz)))
        npz.unlink()
    return tmp_path / "sonar"


def originals_dbinfos(root, **changes):
    """The original's list, of the objects that our own database has."""
    entries = {}
    for stored in read_database(root, min_points={}).objects.values():
        for number, item in enumerate(stored):
            entry = {
                "name": np.str_(item.name),
                "path": f"gt_database/{item.path.name}",
                "image_idx": item.path.name.partition("_")[0],
                "gt_idx": np.int64(number),
                "box3d_lidar": item.box,
                "num_points_in_gt": item.points,
                "difficulty": 0,
                "bbox": np.zeros(4),
                "score": np.float32(-1),
            }
            entry = {key: value for key, value in (entry | changes).items() if value is not None}
            entries.setdefault(np.str_(item.name), []).append(entry)
    return pickle.dumps(entries)


def convert(*words, code=0):
    done = run_command([sys.executable, str(SCRIPT), *map(str, words)], env=ENVIRONMENT, timeout=120)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout if code in (0, 12) and done.stdout else done.stderr


def state_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def ready(data):
    """Everything but the database is converted."""
    assert main(["points", str(data)]) == main(["infos", str(data)]) == 0
    return data


def test_points_are_converted_once_with_a_line_for_every_tenth(data, sample_data):
    told = convert("points", data).splitlines()
    assert told[0] == "points: 12 % (2 of 16)"
    assert told[-2] == "points: 100 % (16 of 16)"
    assert len(told) == 11
    assert re.fullmatch(
        r"Converted 16 of 16 files of points into \S+/points_binary. [\d.]+ KB of text are [\d.]+ KB of binary.",
        told[-1],
    )
    made = {path.name: path.read_bytes() for path in (data / "points_binary").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (sample_data / "points_binary").iterdir()}
    assert "Converted 0 of 16 files of points into" in convert("points", "--data_path", data / "points")
    torn = next((data / "points_binary").iterdir())
    torn.write_bytes(torn.read_bytes()[:-20])
    assert "; 15 were there already; 1 replaced a file with another number" in convert("points", "--data_path", data)
    assert torn.read_bytes() == made[torn.name]


def test_points_killed_in_the_middle_are_the_same_after_a_repetition(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(60):
        points = np.abs(rng.normal(size=(4000, 5))).astype(np.float32)
        write_points(tmp_path / "points" / f"01300{number:02d}.txt", points)
    binary = tmp_path / "points_binary"
    kills = 0
    for wanted in (1, 12, 30):
        process = Popen([sys.executable, str(SCRIPT), "points", str(tmp_path)], stdout=DEVNULL)
        while process.poll() is None and len(list(binary.glob("*.bin"))) < wanted:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        for path in binary.glob("*.bin"):
            assert path.stat().st_size == 4000 * 20
    assert kills
    assert "Converted" in convert("points", tmp_path)
    assert not list(binary.glob("*.partial"))
    for source in (tmp_path / "points").iterdir():
        assert (read_points(binary / f"{source.stem}.bin") == read_points(source)).all()


def test_a_check_lists_every_bad_file_and_changes_nothing(data):
    assert main(["points", str(data)]) == 0
    assert re.fullmatch(r"All 32 files of points are whole: \d+ points, [\d.]+ KB.\n", checked(data))
    names = sorted(path.stem for path in (data / "points").iterdir())
    (data / "points" / f"{names[0]}.txt").write_text("")
    (data / "points" / f"{names[1]}.txt").write_text("1 2 3 4\n")
    (data / "points" / f"{names[2]}.txt").write_text("1 2 nan 4 5\n")
    (data / "points_binary" / f"{names[3]}.bin").write_bytes(bytes(39))
    before = state_of(data)
    told = checked(data, code=12)
    assert state_of(data) == before
    assert re.search(rf"^points/{names[0]}.txt +the file of points is empty", told, re.M)
    assert re.search(rf"^points/{names[1]}.txt +the rows have another length: expected 5 columns.*found 4", told, re.M)
    assert re.search(rf"^points/{names[2]}.txt +point 1 is not a number: found \[1.0, 2.0, nan", told, re.M)
    assert re.search(rf"^points_binary/{names[3]}.bin +the file of points is truncated: .*found 39 bytes", told, re.M)
    assert told.endswith("\n4 of 32 files of points are damaged. Copy them again from their source.\n")


def checked(root, *, code=0):
    lines = convert("points", "--check", root, code=code).splitlines(keepends=True)
    assert lines[0].startswith("check: ")
    return "".join(line for line in lines if not line.startswith("check: "))


def test_a_bad_text_file_ends_the_conversion_with_its_name(data):
    bad = sorted((data / "points").iterdir())[7]
    bad.write_text("1 2 3\n")
    told = errors_of("points", data)
    assert told.startswith(f"{bad}: the rows have another length. Expected 5 columns")
    assert len(told.splitlines()) == 1
    assert not (data / "points_binary" / f"{bad.stem}.bin").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_all_pickled_infos_below_a_folder_are_converted_beside_them(data, sample_data, protocol):
    for split in ("train", "val"):
        known = read_infos(sample_data / f"sonar_infos_{split}.npz")
        (data / f"sonar_infos_{split}.pkl").write_bytes(originals_infos(known, protocol))
    told = convert("infos", data.parent).splitlines()
    assert told[:2] == ["infos: 50 % (1 of 2)", "infos: 100 % (2 of 2)"]
    assert re.fullmatch(r"Converted 2 of 2 files of infos: 16 frames, \d+ objects, [\d.]+ (KB|B).", told[-1])
    for split in ("train", "val"):
        name = f"sonar_infos_{split}.npz"
        assert (data / name).read_bytes() == (sample_data / name).read_bytes()
    (data / "sonar_infos_val.npz").unlink()
    assert "Converted 1 of 2 files of infos; 1 were there already: 4 frames" in convert("infos", data)
    assert convert("infos", data / "sonar_infos_val.pkl").endswith(
        "Converted 0 of 1 files of infos; 1 were there already.\n"
    )


def test_infos_that_say_something_else_are_not_replaced_and_nothing_is_written(data):
    assert main(["infos", str(data / "sonar_infos_train.pkl")]) == 0
    shutil.copy(data / "sonar_infos_train.npz", data / "sonar_infos_val.npz")
    (data / "sonar_infos_train.npz").unlink()
    before = state_of(data)
    told = convert("infos", data, code=10)
    assert "sonar_infos_val.npz: the file exists and says something else." in told
    assert "Move the file away" in told
    assert state_of(data) == before


class Runs:
    """Runs a command of the shell where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("command", ["infos", "database"])
def test_a_pickle_that_would_run_something_is_refused_with_its_name_and_runs_nothing(data, command, protocol):
    ready(data)
    name = "sonar_infos_train.pkl" if command == "infos" else "sonar_dbinfos_train.pkl"
    witness = data / "it_was_run"
    (data / name).write_bytes(pickle.dumps([{"point_cloud": Runs(f"touch {witness}")}], protocol=protocol))
    before = state_of(data)
    done = run_command([sys.executable, str(SCRIPT), command, str(data)])
    assert done.returncode == 12
    assert not witness.exists()
    assert state_of(data) == before
    assert str(data / name) in done.stderr
    assert "found posix.system." in done.stderr
    assert "Nothing in it was executed." in done.stderr


def test_torn_and_foreign_pickles_are_damage(data):
    whole = (data / "sonar_infos_val.pkl").read_bytes()
    (data / "sonar_infos_val.pkl").write_bytes(whole[:-40])
    assert "sonar_infos_val.pkl: the pickle cannot be read" in errors_of("infos", data)
    (data / "sonar_infos_val.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert "the infos are of another form. Expected a list of frames" in errors_of("infos", data)
    assert not list(data.glob("*.npz"))


def errors_of(*words, code=12):
    done = run_command([sys.executable, str(SCRIPT), *map(str, words)])
    assert done.returncode == code, done.stderr
    return done.stderr


def test_the_database_is_cut_out_once(data):
    ready(data)
    told = convert("database", data).splitlines()
    assert told[-2] == "database: 100 % (12 of 12)"
    found = re.fullmatch(
        r"\S+/sonar_dbinfos_train.npz lists (\d+) objects that were cut out into gt_database/: (.+); [\d.]+ KB.",
        told[-1],
    )
    assert found
    objects = read_database(data, min_points={}).objects
    assert found[2] == ", ".join(f"{len(objects[name])} {name}" for name in sorted(objects))
    assert not list(data.glob("*.partial"))
    before = state_of(data)
    assert convert("database", data).splitlines() == told[-1:]
    assert state_of(data) == before
    lost = objects["Box"][0].path
    lost.unlink()
    convert("database", data)
    assert state_of(data) == before
    convert("database", data, "--split", "val")
    assert before.items() <= state_of(data).items()


def test_a_database_killed_in_the_middle_is_the_same_after_a_repetition(data):
    ready(data)
    whole = data.parent / "whole"
    shutil.copytree(data, whole)
    convert("database", whole)
    process = Popen([sys.executable, str(SCRIPT), "database", str(data)], stdout=DEVNULL)
    while process.poll() is None and not list((data / "gt_database").glob("*.bin")):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (data / "sonar_dbinfos_train.npz").exists()
    assert (data / "sonar_dbinfos_train.npz.partial").exists()
    convert("database", data)
    assert state_of(data) == state_of(whole)


def test_objects_of_someone_else_are_not_replaced(data):
    ready(data)
    convert("database", data)
    (data / "sonar_dbinfos_train.npz").unlink()
    before = state_of(data)
    assert "objects of these frames already, and no list of them" in errors_of("database", data, code=10)
    assert state_of(data) == before
    shutil.rmtree(data / "gt_database")
    convert("database", data)
    (data / "sonar_infos_train.npz").unlink()
    shutil.copy(data / "sonar_infos_val.npz", data / "sonar_infos_train.npz")
    assert "sonar_dbinfos_train.npz: the file exists and says something else" in errors_of("database", data, code=10)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": None, "num_points_in_gt": None, "difficulty": None},
        {"num_points_in_gt": None, "score": [1, 2]},
    ],
)
def test_the_originals_list_of_objects_is_converted_and_its_files_stay(data, changes):
    ready(data)
    convert("database", data)
    wanted = {(i.name, i.path, i.box.tobytes(), i.points) for i in all_objects(data)}
    (data / "sonar_dbinfos_train.pkl").write_bytes(originals_dbinfos(data, **changes))
    (data / "sonar_dbinfos_train.npz").unlink()
    before = state_of(data)
    told = convert("database", data)
    assert re.match(rf"\S+_train.npz lists the {len(wanted)} objects of sonar_dbinfos_train.pkl: ", told)
    assert {(i.name, i.path, i.box.tobytes(), i.points) for i in all_objects(data)} == wanted
    assert before.items() < state_of(data).items()
    assert convert("database", data) == told


def all_objects(root):
    return [item for stored in read_database(root, min_points={}).objects.values() for item in stored]


@pytest.mark.parametrize(
    ("path", "is_found"),
    [
        ("{}", True),
        ("gt_database\\{}", True),
        ("/home/someone/data/sonar/gt_database/{}", True),
        (PurePosixPath("gt_database"), True),
        ("elsewhere/{}", False),
        ("gt_database/..", False),
        ("", False),
    ],
)
def test_paths_of_other_machines_are_understood_and_none_leads_out(data, path, is_found):
    ready(data)
    convert("database", data)
    item = all_objects(data)[0]
    place = path / item.path.name if isinstance(path, PurePosixPath) else path.format(item.path.name)
    entry = {"name": item.name, "path": place, "box3d_lidar": [*item.box.tolist(), 0.0, 0.0]}
    (data / "sonar_dbinfos_train.pkl").write_bytes(pickle.dumps({item.name: [entry]}))
    (data / "sonar_dbinfos_train.npz").unlink()
    if is_found:
        convert("database", data)
        assert [(i.path, i.points) for i in all_objects(data)] == [(item.path, item.points)]
    else:
        assert "found ValueError no path of an object" in errors_of("database", data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "gt_database/none.bin"}, "none.bin: the object is missing or truncated. Expected"),
        ({"num_points_in_gt": 100_000}, "missing or truncated. Expected 100000 points of 16 bytes"),
        (
            {"box3d_lidar": None},
            "Expected name, path, box3d_lidar and num_points_in_gt in every object, found KeyError",
        ),
        ({"box3d_lidar": [1, 2, 3]}, "a class and a box in Box number 0"),
        ({"box3d_lidar": np.full(7, np.nan)}, "a class and a box in Box number 0"),
        ({"name": 5}, "a class and a box"),
    ],
)
def test_wrong_lists_of_objects_are_explained(data, changes, message):
    ready(data)
    convert("database", data)
    (data / "sonar_dbinfos_train.pkl").write_bytes(originals_dbinfos(data, **changes))
    (data / "sonar_dbinfos_train.npz").unlink()
    assert message in errors_of("database", data)
    assert not (data / "sonar_dbinfos_train.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "convert.py: the following arguments are required: points|infos|database"),
        (["points"], "it is not clear what to convert. Expected one folder, as DATA_ROOT or as --data_path DIR"),
        (["points", "{}", "--data_path", "{}"], "it is not clear what to convert"),
        (["points", "{}/none"], "none: there is no such folder"),
        (["points", "{}", "--chek"], "Did you mean --check?"),
        (["points", "{}"], "there are no points to convert"),
        (["points", "{}", "--check"], "there are no points to check"),
        (["infos", "{}"], "there are no infos to convert. Expected sonar_infos_*.pkl"),
        (["database", "{}"], "there are no infos. Run `convert.py infos"),
    ],
)
def test_mistakes_in_the_command_line_are_explained(tmp_path, words, message):
    assert message in errors_of(*(word.format(tmp_path) for word in words), code=2)


def test_the_database_asks_for_binary_points_first(data):
    convert("infos", data)
    assert "there are no binary points. Run `convert.py points" in errors_of("database", data, code=2)


def test_a_refusal_of_the_disk_is_one_sentence(data, tmp_path):
    (data / "points_binary").write_text("in the way")
    told = errors_of("points", data, code=1)
    assert "points_binary: the disk refuses (" in told
    assert len(told.splitlines()) == 1


def test_help_is_there_for_every_command():
    assert "points|infos|database" in convert("--help")
    assert "--check" in convert("points", "--help")


def test_a_terminal_shows_a_bar_instead_of_lines(capsys):
    with _shown(Console(force_terminal=True, width=80), "points") as progress:
        progress(3, 3)
    assert "3/3" in capsys.readouterr().out
