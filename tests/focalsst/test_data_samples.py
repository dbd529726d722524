"""The synthetic frames: reproducible one by one, near the real statistics, and careful with directories."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from focalsst.dataset.folder import SonarFolder
from focalsst.dataset.infos import read_infos
from focalsst.dataset.points import read_points
from focalsst.dataset.scene import points_in_box
from focalsst.dataset.splits import leaked_frames, read_image_set
from focalsst.samples import write_sample_data
from focalsst.scenery import BOX, DIVER, POINTS_PER_FRAME, Quantiles, World, draw_frame
from unbroken.errors import UsageError

SMALL = {"train": 5, "val": 2, "points": 300, "frames_per_sequence": 2}
FULL = World(points=POINTS_PER_FRAME, reach_m=48.0, seed=0)


def files_of(directory):
    names = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(directory)): path.read_bytes() for path in names}


@pytest.fixture(scope="module")
def full_frames():
    """Frames as large as real ones, each the first of its own sequence."""
    return [draw_frame(FULL, "train", sequence, 0, "f") for sequence in range(24)]


@pytest.fixture(scope="module")
def many_objects():
    """Names and boxes of 600 sequences of full reach."""
    world = World(points=400, reach_m=48.0, seed=1)
    known = [draw_frame(world, "train", sequence, 0, "f")[1] for sequence in range(600)]
    return {
        name: np.array([box for a in known for kind, box in zip(a.names, a.boxes) if kind == name])
        for name in ("Box", "Diver")
    }


def test_the_layout_is_the_real_one_and_no_sequence_is_in_both_splits(tmp_path):
    told = []
    summary = write_sample_data(tmp_path / "data", **SMALL, progress=lambda *at: told.append(at))
    assert told == [(done, 7) for done in range(1, 8)]
    assert summary["written"] == 7
    training, validation = (read_image_set(tmp_path / "data", split) for split in ("train", "val"))
    assert training == ("1000000", "1000001", "1001000", "1001001", "1002000")
    assert validation == ("2000000", "2000001")
    assert not {frame[:4] for frame in training} & {frame[:4] for frame in validation}
    assert leaked_frames(training, validation) == ()
    for split, frames in (("train", training), ("val", validation)):
        infos = f"sonar_infos_{split}.npz"
        data = SonarFolder(root=tmp_path / "data", split=split, infos=infos, training=False)
        assert data.names == frames
        assert len(data.sample(0, np.random.default_rng(0)).points) > 250
        counted = [name for known in read_infos(tmp_path / "data" / infos) for name in known.names]
        told = summary["splits"][split]
        assert told == {"frames": len(frames), "Box": counted.count("Box"), "Diver": counted.count("Diver")}
    for frame in (*training, *validation):
        binary, text = (tmp_path / "data" / name for name in (f"points_binary/{frame}.bin", f"points/{frame}.txt"))
        assert (read_points(binary) == read_points(text)).all()
        assert len(read_points(binary)) == 300


def test_a_frame_is_the_same_in_any_subset_and_in_another_process(tmp_path):
    write_sample_data(tmp_path / "few", **SMALL)
    write_sample_data(tmp_path / "more", **(SMALL | {"train": 9, "val": 3}))
    code = f"""from pathlib import Path
from focalsst.samples import write_sample_data
write_sample_data(Path({str(tmp_path / "again")!r}), **{SMALL!r})"""
    subprocess.run([sys.executable, "-c", code], check=True)
    few, more, again = (files_of(tmp_path / name) for name in ("few", "more", "again"))
    assert few == again
    points = {name: content for name, content in few.items() if name.startswith("points")}
    assert len(points) == 14
    assert points.items() <= more.items()


def test_split_sequence_number_and_seed_each_change_a_frame():
    keys = [("train", 0, 0, 0), ("val", 0, 0, 0), ("train", 1, 0, 0), ("train", 0, 1, 0), ("train", 0, 0, 1)]
    frames = {
        draw_frame(World(points=300, reach_m=30.0, seed=seed), split, sequence, number, "f")[0].tobytes()
        for split, sequence, number, seed in keys
    }
    assert len(frames) == len(keys)


def test_drawing_touches_no_global_random_state():
    before = np.random.get_state()[1].tolist()
    draw_frame(World(points=300, reach_m=30.0, seed=0), "train", 0, 3, "f")
    assert np.random.get_state()[1].tolist() == before


def test_a_box_is_exactly_around_the_points_of_its_object(full_frames):
    for points, known in full_frames:
        for name, box in zip(known.names, known.boxes):
            own = points[points[:, 4] == {"Box": 1, "Diver": 2}[name]]
            assert len(own) >= 12
            assert points_in_box(own, box, margin_m=1e-4).all()
            tight = box * np.array([1, 1, 1, 0.98, 0.98, 0.98, 1], np.float32)
            assert not points_in_box(own, tight).all()
            assert box[3] >= box[4], "the heading follows the longer side"


def test_sizes_ranges_and_headings_are_near_the_real_ones(many_objects):
    for name, sizes, kind in (("Box", (2.56, 2.15, 1.69), BOX), ("Diver", (1.16, 0.75, 1.33), DIVER)):
        boxes = many_objects[name]
        assert boxes[:, 3:6].mean(axis=0) == pytest.approx(sizes, rel=0.08)
        ranges = np.linalg.norm(boxes[:, :3], axis=1)
        real = np.interp([0.25, 0.5, 0.75], kind.range_m.levels, kind.range_m.values)
        assert np.percentile(ranges, [25, 50, 75]) == pytest.approx(real, rel=0.25)
        headings = boxes[:, 6] % (2 * np.pi)
        assert ((headings >= np.deg2rad(44.9)) & (headings <= np.deg2rad(225.1))).all()
        assert np.histogram(headings, 4, np.deg2rad([45, 225]))[0].min() > 0.15 * len(boxes)
        azimuth = np.rad2deg(np.arctan2(boxes[:, 1], boxes[:, 0]))
        assert np.median(azimuth) == pytest.approx(
            np.interp(0.5, kind.azimuth_deg.levels, kind.azimuth_deg.values), abs=3
        )
    assert len(many_objects["Box"]) >= 595
    assert len(many_objects["Diver"]) / 600 == pytest.approx(0.7176, abs=0.06)


def test_objects_lie_where_the_reach_says():
    world = World(points=300, reach_m=24.0, seed=2)
    boxes = np.concatenate([draw_frame(world, "val", s, n, "f")[1].boxes for s in range(30) for n in (0, 5)])
    assert (boxes[:, 0] > 1.5).all() and (boxes[:, 0] < 22).all()
    assert (np.abs(boxes[:, 1]) < 24 / 3 - 1.3 + 1e-6).all()
    assert (boxes[:, 2] > -5).all() and (boxes[:, 2] < 3.6).all()


def test_points_their_shares_and_their_intensities_are_near_the_real_ones(full_frames):
    points = np.concatenate([points for points, _ in full_frames])
    assert len(points) / len(full_frames) == POINTS_PER_FRAME
    shares = np.bincount(points[:, 4].astype(int), minlength=5) / len(points)
    assert 0.015 < shares[1] < 0.08, "4.0 % in real frames"
    assert 0.003 < shares[2] < 0.03, "1.0 % in real frames"
    assert 0.15 < shares[4] < 0.22
    for label, mean, spread in ((1, 9.03, 0.30), (2, 9.31, 0.44), (3, 8.95, 0.23)):
        loudness = np.log10(points[points[:, 4] == label, 3])
        assert loudness.mean() == pytest.approx(mean, abs=0.05)
        assert loudness.std() == pytest.approx(spread, abs=0.08)
    assert points[:, 3].min() > 3.9e8
    x, y, z = points[:, :3].T
    assert np.percentile(np.abs(np.rad2deg(np.arctan2(y, x))), 99) < 26
    assert np.percentile(x, 0.1) > 0 and x.max() < 50
    assert z.min() > -20 and z.max() < 15


def test_a_far_object_has_fewer_points_as_the_real_fit_says():
    counts, ranges = [], []
    for sequence in range(60):
        points, known = draw_frame(FULL, "val", sequence, 0, "f")
        if "Box" in known.names:
            counts.append((points[:, 4] == 1).sum())
            ranges.append(np.linalg.norm(known.boxes[known.names.index("Box"), :3]))
    slope, _ = np.polyfit(np.log(ranges), np.log(counts), 1)
    assert slope == pytest.approx(-2.3, abs=0.5)


def test_objects_drift_through_a_sequence_and_the_surface_stays():
    world = World(points=2000, reach_m=30.0, seed=4)
    frames = [draw_frame(world, "train", 0, number, "f") for number in range(40)]
    for name, low_m, high_m in (("Box", 0.04, 0.16), ("Diver", 0.1, 0.45)):
        track = {n: known.boxes[known.names.index(name)] for n, (_, known) in enumerate(frames) if name in known.names}
        steps = [np.linalg.norm(track[n + 1][:3] - track[n][:3]) for n in track if n + 1 in track]
        assert low_m < np.median(steps) < high_m
        assert np.ptp([box[3:6] for box in track.values()], axis=0) == pytest.approx(np.zeros(3)), "the size stays"
    heights = [np.median(points[points[:, 4] == 4, 2]) for points, _ in frames]
    assert np.ptp(heights) < 0.2


def test_quantiles_are_drawn_below_a_limit_in_their_own_proportions():
    known = Quantiles(levels=(0.0, 0.5, 1.0), values=(0.0, 1.0, 10.0))
    drawn = known.draw(np.random.default_rng(0), 4000)
    assert np.median(drawn) == pytest.approx(1, abs=0.1)
    low = known.draw(np.random.default_rng(0), 4000, below=1.0)
    assert low.max() <= 1 and low.mean() == pytest.approx(0.5, abs=0.03)


def test_a_repeated_call_writes_nothing(tmp_path):
    first = write_sample_data(tmp_path / "data", **SMALL)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = write_sample_data(tmp_path / "data", **SMALL)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    assert (first["written"], again["written"]) == (7, 0)
    assert again["message"].startswith("Nothing to do: 5 training and 2 validation frames")
    assert again["splits"] == first["splits"]


@pytest.mark.parametrize("harm", ["no manifest", "short file", "no infos", "torn settings"])
def test_what_a_kill_left_is_completed(tmp_path, harm):
    write_sample_data(tmp_path / "data", **SMALL)
    whole = files_of(tmp_path / "data")
    match harm:
        case "no manifest":
            (tmp_path / "data" / "manifest.json").unlink()
        case "short file":
            (tmp_path / "data" / "points" / "1000001.txt").write_text("1 2")
        case "no infos":
            (tmp_path / "data" / "sonar_infos_val.npz").unlink()
        case "torn settings":
            for path in [path for path in (tmp_path / "data").rglob("*") if path.is_file()]:
                path.unlink()
            for path in list((tmp_path / "data").iterdir()):
                path.rmdir()
            (tmp_path / "data" / "settings.json").write_text('{"for')
    assert write_sample_data(tmp_path / "data", **SMALL)["written"] == 7
    assert files_of(tmp_path / "data") == whole


def test_directories_in_use_are_refused_untouched(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"the directory is in use. Expected an empty directory.* found other files"):
        write_sample_data(tmp_path / "foreign", **SMALL)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match=r"found other files"):
        write_sample_data(tmp_path / "foreign" / "thesis.txt", **SMALL)
    write_sample_data(tmp_path / "data", **SMALL)
    before = files_of(tmp_path / "data")
    with pytest.raises(UsageError, match=r"found sample data of train 5, val 2, points 300.* Choose another directory"):
        write_sample_data(tmp_path / "data", **(SMALL | {"seed": 1}))
    assert files_of(tmp_path / "data") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 0}, r"too few frames. Expected train and val of 1 or more, found train 0, val 2"),
        ({"val": 0}, r"too few frames"),
        ({"points": 100}, r"too few points for a frame. Expected 200 or more"),
        ({"reach_m": 60}, r"the reach is not a sonar's. Expected 16.0 to 48.0 m"),
        ({"frames_per_sequence": 0}, r"the sequences have no such length. Expected 1 to 1000 frames"),
        ({"train": 3000}, r"too many sequences. Expected 1000 sequences of 2 frames in a split"),
    ],
)
def test_senseless_parameters_are_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        write_sample_data(tmp_path / "data", **(SMALL | change))
    assert not (tmp_path / "data").exists()


def test_the_manifest_lists_every_file_with_its_size(tmp_path):
    write_sample_data(tmp_path / "data", **SMALL)
    listed = json.loads((tmp_path / "data" / "manifest.json").read_text())["files"]
    assert listed == {name: len(content) for name, content in files_of(tmp_path / "data").items()}
