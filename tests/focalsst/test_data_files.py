"""Files of points, infos and splits: round trips, conversions, and what is said about damaged ones."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from functools import partial

import numpy as np
import pytest

from focalsst.conversion import convert_points
from focalsst.dataset.infos import Annotation, read_infos, read_pickled_infos, write_infos
from focalsst.dataset.points import (
    as_written,
    encode_intensity,
    read_points,
    recode_intensity,
    require_encoding,
    write_points,
)
from focalsst.dataset.splits import leaked_frames, read_image_set
from tests.focalsst.original_infos import originals_infos
from unbroken.errors import ConfigError, DamagedFile, UsageError

BOXES = np.array([[11.4, 1.9, -0.1, 2.3, 2.2, 1.6, 3.0], [13.1, 0.4, 0.1, 1.3, 1.1, 1.7, -1.9]], np.float32)
EMPTY = np.zeros((0, 7), np.float32)
KNOWN = (
    Annotation(frame="0130085", names=("Box", "Diver"), boxes=BOXES),
    Annotation(frame="a_0140003", names=(), boxes=EMPTY),
    Annotation(frame="0160001", names=("Pedestrian",), boxes=BOXES[1:]),
)


def some_points(count=50, seed=0):
    rng = np.random.default_rng(seed)
    columns = [rng.uniform(-20, 48, (count, 3)), 10 ** rng.uniform(8.6, 11, (count, 1)), rng.integers(1, 5, (count, 1))]
    return np.concatenate(columns, axis=1).astype(np.float32)


def as_plain(annotations):
    return [(known.frame, known.names, known.boxes.tolist()) for known in annotations]


def test_text_and_binary_hold_the_same_numbers(tmp_path):
    points = as_written(some_points())
    for name in ("a.txt", "b.bin"):
        size = write_points(tmp_path / name, points)
        assert size == (tmp_path / name).stat().st_size
        read = read_points(tmp_path / name)
        assert read.dtype == np.float32
        assert (read == points).all()
    first = (tmp_path / "a.txt").read_text().splitlines()[0].split(" ")
    assert [len(number.partition(".")[2]) for number in first] == [6, 6, 6, 1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.bin"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"", "the file of points is empty"),
        ("a.txt", b" \n", "the file of points is empty"),
        ("a.bin", bytes(39), r"truncated. Expected a multiple of 20 bytes .* found 39 bytes"),
        ("a.bin", np.array([1, 2, np.nan, 4, 5], "<f4").tobytes(), "point 1 is not a number"),
        ("a.txt", b"1 2 3 4\n", "rows have another length. Expected 5 columns: .* found 4"),
        ("a.txt", b"1 2 3 4 5\n1 2 3 4\n", "not a table of numbers"),
        ("a.txt", b"1 2 x 4 5\n", "not a table of numbers"),
        ("a.txt", b"1 2 3 4 5\n1 inf 3 4 5\n", "point 2 is not a number"),
    ],
)
def test_damaged_points_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedFile, match=message) as caught:
        read_points(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_a_missing_file_of_points_is_named(tmp_path):
    with pytest.raises(DamagedFile, match=r"the points cannot be read"):
        read_points(tmp_path / "a.bin")


def test_intensities_are_encoded_as_the_original_does_or_to_a_spread_of_about_one():
    raw = np.array([0, 4e8, 7.7e8, 4.71e10, 1.9e11], np.float32)
    original = encode_intensity(raw, "original")
    assert original == pytest.approx(np.log10(np.clip(raw.astype(np.float64), 0, 4.71e10) + 1) / 11, rel=1e-6)
    assert 0.78 < original[1] < original[3] == original[4] < 0.975
    standard = encode_intensity(raw, "standard")
    assert standard[2] == pytest.approx((np.log10(7.7e8) - 8.95) / 0.35, abs=1e-4)
    assert recode_intensity(original, "standard") == pytest.approx(standard, abs=1e-4)
    assert (recode_intensity(original, "original") == original).all()
    with pytest.raises(ConfigError, match=r"encoding is not known. Expected standard or original, found 'loud'"):
        require_encoding("loud")


@pytest.mark.parametrize("name", ["infos.npz", "infos.json"])
def test_infos_come_back_with_frames_without_objects_and_long_names(tmp_path, name):
    write_infos(tmp_path / name, KNOWN)
    assert as_plain(read_infos(tmp_path / name)) == as_plain(KNOWN)
    again = (tmp_path / name).read_bytes()
    write_infos(tmp_path / name, KNOWN)
    assert (tmp_path / name).read_bytes() == again


@pytest.mark.parametrize("name", ["infos.npz", "infos.json"])
def test_infos_of_frames_without_any_object_come_back(tmp_path, name):
    write_infos(tmp_path / name, KNOWN[1:2])
    assert as_plain(read_infos(tmp_path / name)) == as_plain(KNOWN[1:2])
    write_infos(tmp_path / name, [])
    assert read_infos(tmp_path / name) == ()


def test_objects_may_be_listed_in_any_order(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        frame_id=np.array(["1", "2", "3"]),
        box_frame=np.array([2, 0]),
        box_name=np.array(["Diver", "Box"]),
        box7=BOXES,
    )
    assert [known.names for known in read_infos(tmp_path / "a.npz")] == [("Box",), (), ("Diver",)]


def json_infos(**changes):
    return json.dumps([{"frame": "1", "names": ["Box"], "boxes": [[1, 2, 3, 4, 5, 6, 7]]} | changes])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "the infos cannot be read"),
        ("{}", "another form. Expected a list of objects with frame, names and boxes, found dict"),
        ("[{}]", "another form"),
        (json_infos(boxes=[]), r"boxes and names do not fit together. Expected boxes of shape \(1, 7\) for 1 names"),
        (json_infos(boxes=[[1, 2]]), r"do not fit together"),
        (json_infos(boxes=[["a"] * 7]), "frame 1: the boxes are no numbers"),
        (json_infos(boxes=[[1, 2, 3, 0, 5, 6, 7]]), "frame 1: the box of Box is none. Expected x y z dx dy dz heading"),
        (json_infos(boxes=[[1, 2, 3, float("nan"), 5, 6, 7]]), "the box of Box is none"),
        (json_infos(frame=5), "its id and the names of its objects are not all text"),
        (json_infos(names="B"), "not all text"),
        (json_infos(names=[5]), "not all text"),
        (json.dumps(json.loads(json_infos()) * 2), "frame 1 is listed twice"),
    ],
)
def test_wrong_infos_are_explained(tmp_path, content, message):
    (tmp_path / "infos.json").write_text(content)
    with pytest.raises(DamagedFile, match=message):
        read_infos(tmp_path / "infos.json")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"frame_id": np.array(["1"])},
            "the infos hold other arrays. Expected frame_id, box_frame, box_name, box7, found frame_id",
        ),
        ({"box_frame": np.array([1])}, r"Expected box_frame within 0..0, found 1..1"),
        ({"box_frame": np.array([0.0])}, "one frame, one name and one box per object"),
        ({"box_name": np.array(["Box", "Box"])}, r"one box per object, found \[1, 2, 1\]"),
        ({"box_name": np.array([None])}, "the infos cannot be read"),
    ],
)
def test_wrong_arrays_are_explained(tmp_path, arrays, message):
    right = {
        "frame_id": np.array(["1"]),
        "box_frame": np.array([0]),
        "box_name": np.array(["Box"]),
        "box7": BOXES[:1],
    }
    np.savez(tmp_path / "infos.npz", **(arrays if "frame_id" in arrays else right | arrays))
    with pytest.raises(DamagedFile, match=message):
        read_infos(tmp_path / "infos.npz")


def test_infos_that_are_torn_missing_or_of_another_kind_are_refused(tmp_path):
    write_infos(tmp_path / "torn.npz", KNOWN)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "torn.npz").read_bytes()[:-30])
    with pytest.raises(DamagedFile, match=r"the infos cannot be read"):
        read_infos(tmp_path / "torn.npz")
    np.save(tmp_path / "one.npy", BOXES)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DamagedFile, match=r"the infos cannot be read. Expected a whole npz archive"):
        read_infos(tmp_path / "one.npz")
    with pytest.raises(UsageError, match=r"there is no such file of infos"):
        read_infos(tmp_path / "none.npz")
    with pytest.raises(UsageError, match=r"this is no file of infos. Expected .npz or .json, found '.csv'"):
        read_infos(tmp_path / "infos.csv")
    with pytest.raises(UsageError, match=r"could run code. .* Convert the file once: python convert.py infos"):
        read_infos(tmp_path / "infos.pkl")
    with pytest.raises(UsageError, match=r"the infos have no such form"):
        write_infos(tmp_path / "infos.csv", KNOWN)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_originals_infos_is_converted_without_running_it(tmp_path, protocol):
    (tmp_path / "infos.pkl").write_bytes(originals_infos(KNOWN, protocol))
    write_infos(tmp_path / "infos.npz", read_pickled_infos(tmp_path / "infos.pkl"))
    assert as_plain(read_infos(tmp_path / "infos.npz")) == as_plain(KNOWN)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('it was run')",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "Expected a list of frames, found dict"),
        ([{"point_cloud": {}}], "found KeyError 'lidar_idx' in frame 0"),
        ([{"point_cloud": {"lidar_idx": "1"}, "annos": {"name": 5, "gt_boxes_lidar": 5}}], "in frame 0"),
        (
            [{"point_cloud": {"lidar_idx": "1"}, "annos": {"name": Bomb(), "gt_boxes_lidar": 5}}],
            "of something else than plain values",
        ),
        (Bomb(), "of something else than plain values"),
    ],
)
def test_a_foreign_or_hostile_pickle_is_damage_and_runs_nothing(tmp_path, value, message):
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(DamagedFile, match=message):
        read_pickled_infos(tmp_path / "infos.pkl")


def test_text_files_are_converted_once_and_torn_ones_again(tmp_path):
    frames = {f"000{n}": as_written(some_points(20 + n, seed=n)) for n in range(3)}
    for frame, points in frames.items():
        write_points(tmp_path / "points" / f"{frame}.txt", points)
    told = []
    assert convert_points(tmp_path, progress=lambda *at: told.append(at)) == 3
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert convert_points(tmp_path) == 0
    torn = tmp_path / "points_binary" / "0001.bin"
    torn.write_bytes(torn.read_bytes()[:-20])
    assert convert_points(tmp_path) == 1
    for frame, points in frames.items():
        assert (read_points(tmp_path / "points_binary" / f"{frame}.bin") == points).all()


def test_converting_nothing_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match=r"there are no points to convert"):
        convert_points(tmp_path)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, UsageError, r"the list of frames is missing. Expected ImageSets/<split>.txt"),
        ("\n", UsageError, "the list of frames is empty"),
        ("1\n2\n1\n", DamagedFile, "frame 1 is listed twice"),
        ("../secret\n", DamagedFile, "this is no id of a frame. Found '../secret'"),
    ],
)
def test_wrong_lists_of_frames_are_explained(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "ImageSets").mkdir()
        (tmp_path / "ImageSets" / "train.txt").write_text(content)
    with pytest.raises(error, match=message):
        read_image_set(tmp_path, "train")


def test_the_order_of_a_list_is_kept(tmp_path):
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "val.txt").write_text("0130085\na_0130001\r\n0130002")
    assert read_image_set(tmp_path, "val") == ("0130085", "a_0130001", "0130002")


def test_frames_and_copies_that_two_lists_share_are_found():
    assert leaked_frames(["0130001", "a_0130001", "0140001"], ["0130081"]) == ()
    assert leaked_frames(["a_0130001", "0140001"], ["0130001", "d_0140001", "0130002"]) == ("0130001", "d_0140001")


@pytest.mark.parametrize("form", ["npz", "pkl"])
def test_names_with_characters_that_there_are_not_are_damage(tmp_path, form):
    raw = np.array([0x110000], np.uint32).view("<U1")
    path = tmp_path / f"infos.{form}"
    if form == "npz":
        np.savez(path, frame_id=np.array(["a"]), box_frame=np.zeros(1, np.int32), box_name=raw, box7=np.ones((1, 7)))
        read = partial(read_infos, path)
    else:
        row = {"point_cloud": {"lidar_idx": "a"}, "annos": {"name": raw, "gt_boxes_lidar": np.ones((1, 7))}}
        path.write_bytes(pickle.dumps([row], protocol=4))
        read = partial(read_pickled_infos, path)
    with pytest.raises(DamagedFile, match=r"infos\.(npz|pkl)"):
        read()


def test_an_npz_that_claims_more_than_it_has_is_damage_before_room_is_made(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**33,)})
    with zipfile.ZipFile(tmp_path / "infos.npz", "w") as archive:
        for name in ("frame_id", "box_frame", "box_name", "box7"):
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(DamagedFile, match=r"infos\.npz"):
        read_infos(tmp_path / "infos.npz")


def test_a_box_of_a_number_that_no_float_holds_is_damage(tmp_path):
    row = {"frame": "a", "names": ["Box"], "boxes": [[10**400] * 7]}
    (tmp_path / "infos.json").write_text(json.dumps([row]))
    with pytest.raises(DamagedFile, match=r"infos\.json: frame a: the boxes are no numbers"):
        read_infos(tmp_path / "infos.json")


# Bytes that are other points than those that are asked for.

HOW_TO_WRITE = r"Write each file anew as float32, 5 numbers a point \(x y z intensity class; a class of 0 will do\)"


def quiet_points(count, seed=0):
    """Points whose intensities are no louder than their places are far: nothing but their order tells columns apart."""
    points = some_points(count, seed).astype(np.float64)
    points[:, :3] = np.random.default_rng(seed).uniform([0, -8, -5], [24, 8, 2], (count, 3))
    points[:, 3] = np.random.default_rng(seed).uniform(0, 1, count)
    return points


LAYOUTS = {
    "4 columns": (lambda points: points[:, :4].astype("<f4"), "4 float32 numbers a point"),
    "3 columns": (lambda points: points[:, :3].astype("<f4"), "3 float32 numbers a point"),
    "float64": (lambda points: points.astype("<f8"), "5 float64 numbers a point"),
    "float64 of float32": (lambda points: points.astype("<f4").astype("<f8"), "5 float64 numbers a point"),
    "float64 of few digits": (lambda points: np.round(points * 2).astype("<f8") / 2, "5 float64 numbers a point"),
    "4 columns of float64": (lambda points: points[:, :4].astype("<f8"), "4 float64 numbers a point"),
    "the other byte order": (lambda points: points.astype(">f4"), "5 big-endian float32 numbers a point"),
}


@pytest.mark.parametrize("count", [40, 600])
@pytest.mark.parametrize("draw", [some_points, quiet_points])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_columns_and_types_are_never_read_as_other_points(tmp_path, layout, draw, count):
    change, name = LAYOUTS[layout]
    points = draw(count)
    points[:, 4] = np.random.default_rng(1).integers(1, 5, count)
    data = change(points.astype(np.float64)).tobytes()
    assert len(data) % 20 == 0, "this is about files whose size says nothing"
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(DamagedFile, match=rf"another layout.*found {name}.*{HOW_TO_WRITE}"):
        read_points(tmp_path / "a.bin")


@pytest.mark.parametrize("seed", range(20))
def test_points_as_they_should_be_are_never_taken_for_others(tmp_path, seed):
    rng = np.random.default_rng(seed)
    for points in (some_points(80, seed), quiet_points(80, seed).astype(np.float32)):
        if seed % 2:  # a fifth column of something else is not used, and no reason to refuse
            points[:, 4] = rng.uniform(0, 50, 80)
        points.astype("<f4").tofile(tmp_path / "a.bin")
        assert (read_points(tmp_path / "a.bin") == points).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.zeros((30, 5), "<f4").tobytes(), "holds only zeros. Found 30 points"),
        (
            some_points(30)[:, :4].tobytes()[:-16],
            r"another layout.*464 bytes, which are 4 float32 numbers a point",
        ),
        ((some_points(30) * [1e6, 1e6, 1e6, 1, 1]).astype("<f4").tobytes(), r"lie beyond 10 km.*Are these millimetres"),
        (b"1.5 2.5 0.5 7e8 1.0\n" * 3, r"this is text, not binary points.*convert.py points"),
        (b"# .PCD v0.7 - Point Cloud Data file format\n\n", r"this is a \.pcd file"),
        (b"ply\nformat binary", r"this is a \.ply file"),
    ],
)
def test_files_that_are_no_points_are_called_what_they_are(tmp_path, content, said):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DamagedFile, match=said):
        read_points(tmp_path / "a.bin")


@pytest.mark.parametrize(("dtype", "columns"), [(np.float64, 4), (np.float32, 5)])
def test_a_numpy_file_under_this_name_is_called_one_with_its_shape(tmp_path, dtype, columns):
    with (tmp_path / "a.bin").open("wb") as file:
        np.save(file, some_points(16)[:, :columns].astype(dtype))
    said = rf"a \.npy file with {np.dtype(dtype).name} of shape \(16, {columns}\), not binary points"
    with pytest.raises(DamagedFile, match=said):
        read_points(tmp_path / "a.bin")


# Text as Windows writes it.

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_points_and_infos_are_read_in_each_encoding_of_windows(tmp_path, encoding, end):
    points = as_written(some_points())
    write_points(tmp_path / "a.txt", points)
    text = (tmp_path / "a.txt").read_text().replace("\n", end)
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert (read_points(tmp_path / "a.txt") == points).all()
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_bytes(f"000001{end}a_000002{end}\x1a".encode(encoding))
    assert read_image_set(tmp_path, "train") == ("000001", "a_000002")
    write_infos(tmp_path / "a.json", KNOWN)
    (tmp_path / "a.json").write_bytes((tmp_path / "a.json").read_text().replace("\n", end).encode(encoding))
    assert as_plain(read_infos(tmp_path / "a.json")) == as_plain(KNOWN)


@pytest.mark.parametrize("line", ["000001.bin", "points/000001.txt"])
def test_names_of_files_in_a_list_are_no_ids(tmp_path, line):
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_text(line)
    with pytest.raises(DamagedFile, match=r"no id of a frame.*Write ids alone: no folder, no suffix"):
        read_image_set(tmp_path, "train")


def test_converted_text_of_windows_is_not_converted_again(tmp_path):
    write_points(tmp_path / "points" / "1.txt", some_points())
    (tmp_path / "points" / "1.txt").write_bytes((tmp_path / "points" / "1.txt").read_text().encode("utf-16"))
    assert [convert_points(tmp_path), convert_points(tmp_path)] == [1, 0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1,2,3,7e8,1\n", r"separated by commas: write spaces"),
        (b"1;2;3;7e8;1\n", r"separated by semicolons: write spaces"),
        (b"1 2 3 7e8\n", r"another length.*found 4. Write a fifth column, 0 in every row will do"),
        ("1 2 3 7e8 Täucher\n".encode("cp1252"), r"this is no text. Expected text in UTF-8, or in UTF-16"),
    ],
)
def test_text_that_is_no_table_says_what_to_write(tmp_path, content, said):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DamagedFile, match=said):
        read_points(tmp_path / "a.txt")
