"""The data set object: what a sample is, that it depends on its generator alone, batches, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import random
from functools import partial

import numpy as np
import pytest
import torch

from focalsst.config.data import DataAugmentor
from focalsst.dataset.database import paste_objects, read_database, write_database
from focalsst.dataset.folder import SonarFolder, collate
from focalsst.dataset.infos import Annotation, read_infos, write_infos
from focalsst.dataset.points import encode_intensity, read_points
from focalsst.dataset.scene import Extent, points_in_box, random_flip, random_rotation, random_scaling
from focalsst.datasets import augmentations_of
from focalsst.samples import write_sample_data
from unbroken.config import validate
from unbroken.errors import ConfigError, DamagedFile, UsageError
from unbroken.train import one_pass

SPOTS = np.stack(np.meshgrid(np.arange(0, 32, 0.1), np.arange(-10, 10, 0.1), [0.0]), axis=-1).reshape(-1, 3)
MICRO = Extent(low=(0, -10, -8), high=(32, 10, 4))
PASTING = {
    "NAME": "gt_sampling",
    "USE_ROAD_PLANE": False,
    "DB_INFO_PATH": ["sonar_dbinfos_train.pkl"],
    "PREPARE": {"filter_by_min_points": ["Box:20", "Diver:5"]},
    "SAMPLE_GROUPS": ["Box:3", "Diver:6"],
    "NUM_POINT_FEATURES": 4,
    "REMOVE_EXTRA_WIDTH": [0.0, 0.0, 0.0],
    "LIMIT_WHOLE_SCENE": True,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sonar") / "data"
    write_sample_data(directory, train=12, val=4, points=900, frames_per_sequence=2, seed=3)
    write_database(directory, read_infos(directory / "sonar_infos_train.npz"))
    return directory


@pytest.fixture(scope="module")
def database(root):
    return read_database(root, min_points={})


def folder(root, split="train", **changes):
    arguments = {"infos": f"sonar_infos_{split}.npz", "training": split == "train"}
    return SonarFolder(root=root, split=split, **(arguments | changes))


def augmented(root, database):
    steps = (
        partial(paste_objects, database=database, groups={"Box": 2, "Diver": 3}),
        random_flip,
        partial(random_rotation, range_rad=(-0.2, 0.2)),
        partial(random_scaling, factors=(0.95, 1.05)),
    )
    return folder(root, augmentations=steps, extent=MICRO)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_sample_in_evaluation_is_the_frame_itself_in_order(root):
    data = folder(root, "val")
    raw = read_points(root / "points_binary" / f"{data.names[1]}.bin")
    raw = raw[(raw[:, :3] >= Extent().low).all(axis=1) & (raw[:, :3] <= Extent().high).all(axis=1)]
    sample = data.sample(1, rng())
    assert sample.name == data.names[1] == "2000001"
    assert (sample.points[:, :3].numpy() == raw[:, :3]).all()
    assert (sample.points[:, 3].numpy() == encode_intensity(raw[:, 3], "standard")).all()
    known = data.annotation(1)
    assert sample.boxes[:, :7].numpy() == pytest.approx(known.boxes)
    assert sample.boxes[:, 7].tolist() == [{"Box": 1, "Diver": 2}[name] for name in known.names]
    assert sample.points.dtype == sample.boxes.dtype == torch.float32


def test_text_and_binary_points_give_the_same_sample(root):
    first, second = (folder(root, "val", binary=binary).sample(0, rng()) for binary in (True, False))
    assert torch.equal(first.points, second.points)
    assert torch.equal(first.boxes, second.boxes)


def test_the_classes_decide_which_objects_there_are_and_their_numbers(root):
    divers = folder(root, "val", classes=["Diver"])
    for index in range(len(divers)):
        names = divers.annotation(index).names
        assert divers.sample(index, rng()).boxes[:, 7].tolist() == [1.0] * names.count("Diver")
    swapped = folder(root, "val", classes=["Diver", "Box"]).sample(0, rng())
    assert swapped.boxes[0, 7] == 2


def test_only_training_shuffles_and_drops_boxes_outside_the_range(root):
    tiny = Extent(low=(0, -1, -1), high=(5, 1, 1))
    assert len(folder(root, extent=tiny).sample(0, rng()).boxes) == 0
    assert len(folder(root, extent=tiny, training=False).sample(0, rng()).boxes) > 0
    shuffled, plain = folder(root).sample(0, rng()).points, folder(root, training=False).sample(0, rng()).points
    assert not torch.equal(shuffled, plain)
    assert torch.equal(shuffled.sort(dim=0).values, plain.sort(dim=0).values)


def test_points_above_the_range_can_be_kept(root):
    flat = Extent(low=(0, -20, -1), high=(50, 20, 1))
    assert folder(root, extent=flat).sample(0, rng()).points[:, 2].abs().max() <= 1
    assert folder(root, extent=flat, mask_z=False).sample(0, rng()).points[:, 2].abs().max() > 1


def test_a_sample_is_the_same_whatever_was_drawn_before(root, database):
    data = augmented(root, database)
    first = [data.sample(index, rng(index)) for index in range(len(data))]
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    for index in reversed(range(len(data))):
        again = data.sample(index, rng(index))
        assert torch.equal(again.points, first[index].points)
        assert torch.equal(again.boxes, first[index].boxes)
    assert not torch.equal(data.sample(0, rng(1)).points[:50], first[0].points[:50])


def test_loading_touches_no_global_random_state(root, database):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    augmented(root, database).sample(0, rng())
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def in_another_process(data, index, queue):
    queue.put(data.sample(index, rng(7)).points.numpy().tobytes())


def test_a_sample_is_the_same_in_another_process(root, database):
    data = augmented(root, database)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=in_another_process, args=(data, 4, queue))
    process.start()
    assert queue.get(timeout=60) == data.sample(4, rng(7)).points.numpy().tobytes()
    process.join()


def test_any_number_of_workers_gives_the_same_batches(root, database):
    data = augmented(root, database)
    none, two = (
        [batch.points for batch in one_pass(data, batch_size=5, workers=workers, collate=collate)] for workers in (0, 2)
    )
    assert len(none) == 3
    assert all(torch.equal(first, second) for first, second in zip(none, two, strict=True))


def test_headings_of_augmented_boxes_stay_on_the_circle(root, database):
    data = augmented(root, database)
    headings = torch.cat([data.sample(index, rng(index)).boxes[:, 6] for index in range(len(data))])
    assert (headings.abs() <= np.pi + 1e-6).all()


def test_a_batch_pads_boxes_and_tells_whose_points_are_whose(root):
    data = folder(root)
    samples = [data.sample(index, rng(index)) for index in range(3)]
    bare = folder(root, infos=None).sample(3, rng())
    batch = collate([*samples, bare])
    assert len(batch) == 4 and batch.names == (*(sample.name for sample in samples), bare.name)
    assert batch.boxes.shape == (4, max(len(sample.boxes) for sample in samples), 8)
    assert batch.counts.tolist() == [*(len(sample.boxes) for sample in samples), 0]
    for number, sample in enumerate([*samples, bare]):
        assert torch.equal(batch.points[batch.owner == number], sample.points)
        assert torch.equal(batch.boxes[number, : len(sample.boxes)], sample.boxes)
        assert not batch.boxes[number, len(sample.boxes) :].any()
    assert collate([bare]).boxes.shape == (1, 0, 8)
    assert batch.to("cpu").names == batch.names


def test_the_fingerprint_knows_frames_sizes_boxes_and_classes_but_no_place(root, tmp_path):
    known = folder(root).fingerprint()
    write_sample_data(tmp_path / "copy", train=12, val=4, points=900, frames_per_sequence=2, seed=3)
    assert folder(tmp_path / "copy").fingerprint() == known
    infos = list(read_infos(root / "sonar_infos_train.npz"))
    infos[0] = Annotation(frame=infos[0].frame, names=infos[0].names, boxes=infos[0].boxes + np.float32(0.01))
    write_infos(tmp_path / "copy" / "moved.npz", infos)
    changed = [
        folder(root, infos=None).fingerprint(),
        folder(root, classes=["Box"]).fingerprint(),
        folder(tmp_path / "copy", infos="moved.npz").fingerprint(),
        folder(root, "val").fingerprint(),
    ]
    assert len({known, *changed}) == 5


def test_infos_of_another_split_are_refused(root):
    with pytest.raises(
        UsageError, match=r"infos are of another split. Expected the 12 frames .* 12 missing \(1000000, "
    ):
        folder(root, infos="sonar_infos_val.npz")


def test_missing_points_are_counted_and_named(tmp_path):
    write_sample_data(tmp_path / "d", train=3, val=1, points=200)
    (tmp_path / "d" / "points_binary" / "1000001.bin").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 frames have no file of points.* none for 1000001. Convert the text"):
        folder(tmp_path / "d")
    assert len(folder(tmp_path / "d", binary=False)) == 3
    with pytest.raises(UsageError, match=r"the list of frames is missing"):
        folder(tmp_path / "d", "test")


def test_an_unknown_encoding_is_refused_at_once(root):
    with pytest.raises(ConfigError, match=r"this encoding is not known"):
        folder(root, intensity="log")


# The database of objects.


def test_the_database_holds_the_points_of_every_object_where_they_were(root, database):
    scenes = {name: folder(root).scene(index) for index, name in enumerate(folder(root).names)}
    objects = [item for kind in database.objects.values() for item in kind]
    assert len(objects) == sum(len(known.names) for known in read_infos(root / "sonar_infos_train.npz"))
    for item in objects[:10]:
        scene = scenes[item.path.name.split("_")[0]]
        inside = scene.points[points_in_box(scene.points, item.box, margin_m=1e-4)]
        assert item.read("standard") == pytest.approx(inside, abs=1e-4)
        assert item.points == len(inside) >= 12


def test_only_objects_with_enough_points_are_listed(root, database):
    few = read_database(root, min_points={"Diver": 10_000})
    assert few.objects["Diver"] == ()
    assert len(few.objects["Box"]) == len(database.objects["Box"])


def test_pasted_objects_overlap_nothing_and_displace_what_was_there(root, database):
    scene = folder(root).scene(0)
    pasted_some = 0
    for seed in range(20):
        pasted = paste_objects(scene, rng(seed), database=database, groups={"Box": 3, "Diver": 4})
        added = len(pasted.names) - len(scene.names)
        pasted_some += added > 0
        assert pasted.names[: len(scene.names)] == scene.names
        assert (pasted.boxes[: len(scene.boxes)] == scene.boxes).all()
        assert list(pasted.names[len(scene.names) :]) == sorted(pasted.names[len(scene.names) :])
        stored = {item.box.tobytes(): item for kind in database.objects.values() for item in kind}
        for box in pasted.boxes[len(scene.boxes) :]:
            inside = points_in_box(pasted.points, box, margin_m=-1e-3).sum()
            assert inside <= stored[box.tobytes()].points
        # by brute force: no spot of the sea floor is under a new box and any other one
        under = [points_in_box(SPOTS, box * [1, 1, 0, 1, 1, 1, 1]).astype(int) for box in pasted.boxes]
        new = sum(under[len(scene.boxes) :], np.zeros(len(SPOTS)))
        assert new.max() <= 1
        assert not (new * sum(under[: len(scene.boxes)])).any()
    assert pasted_some > 10


def test_the_limit_counts_objects_that_are_there_already(root, database):
    data = folder(root)
    index = next(i for i in range(len(data)) if data.annotation(i).names == ("Box", "Diver"))
    groups = {"Box": 1, "Diver": 1}
    scene = data.scene(index)
    limited = partial(paste_objects, database=database, groups=groups, limit_whole_scene=True)
    assert all(limited(scene, rng(seed)).names == scene.names for seed in range(5))
    free = partial(paste_objects, database=database, groups=groups)
    assert any(len(free(scene, rng(seed)).names) > 2 for seed in range(5))


def test_extra_width_makes_more_room(root, database):
    scene = folder(root).scene(0)
    counts = {
        width: sum(
            len(paste_objects(scene, rng(n), database=database, groups={"Diver": 1}, extra_width_m=(width,) * 3).points)
            for n in range(5)
        )
        for width in (0.0, 8.0)
    }
    assert counts[8.0] < counts[0.0]


def test_the_database_is_the_same_when_written_again(root, tmp_path):
    before = {path.name: path.read_bytes() for path in (root / "gt_database").iterdir()}
    told = []
    infos = read_infos(root / "sonar_infos_train.npz")
    count = write_database(root, infos, progress=lambda *at: told.append(at))
    assert {path.name: path.read_bytes() for path in (root / "gt_database").iterdir()} == before
    assert count == len(before)
    assert told == [(done, 12) for done in range(1, 13)]


def test_a_missing_or_torn_database_is_explained(tmp_path):
    with pytest.raises(UsageError, match=r"there is no database of objects. Write it once: python convert.py database"):
        read_database(tmp_path, min_points={})
    write_sample_data(tmp_path / "d", train=1, val=1, points=200)
    write_database(tmp_path / "d", read_infos(tmp_path / "d" / "sonar_infos_train.npz"))
    box = read_database(tmp_path / "d", min_points={}).objects["Box"][0]
    box.path.write_bytes(box.path.read_bytes()[:-4])
    with pytest.raises(DamagedFile, match=r"the object is missing or truncated. Expected \d+ points"):
        box.read("standard")
    (tmp_path / "d" / "sonar_dbinfos_train.npz").write_bytes(b"PK")
    with pytest.raises(DamagedFile, match=r"the objects cannot be read.* write it again: python convert.py database"):
        read_database(tmp_path / "d", min_points={})


# The original's list of augmentations.


def test_the_originals_entries_become_functions_in_their_order(root, database):
    entries = [
        PASTING,
        {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x"]},
        {"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": [-0.39, 0.39]},
        {"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [0.95, 1.05]},
    ]
    steps = augmentations_of(enabled(*entries), database)
    assert [getattr(step, "func", step) for step in steps] == [
        paste_objects,
        random_flip,
        random_rotation,
        random_scaling,
    ]
    assert steps[0].keywords["groups"] == {"Box": 3, "Diver": 6} and steps[0].keywords["limit_whole_scene"]
    assert steps[0].keywords["extra_width_m"] == (0.0, 0.0, 0.0)
    assert enabled(PASTING)[0].least_points == {"Box": 20, "Diver": 5}
    assert len(folder(root, augmentations=steps).sample(0, rng()).boxes) >= 1
    left = enabled(*entries, disabled=["gt_sampling", "random_world_flip"])
    assert augmentations_of(left)[0].func is random_rotation
    single = augmentations_of(enabled({"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": 0.3}))
    assert single[0].keywords == {"range_rad": (-0.3, 0.3)}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"NAME": "mixup"}, r"AUG_CONFIG_LIST\.0.* names nothing that is known"),
        ({}, r"AUG_CONFIG_LIST\.0"),
        ({"NAME": "random_world_flip", "AXES": 1}, r"AXES"),
        ({"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x", "y"]}, r"forward-looking sonar.* remove 'y'"),
        ({"NAME": "random_world_rotation"}, r"WORLD_ROT_ANGLE"),
        ({"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [2, 1]}, r"WORLD_SCALE_RANGE` is no range"),
        (PASTING | {"USE_ROAD_PLANE": True}, r"USE_ROAD_PLANE"),
        (PASTING | {"SAMPLE_GROUPS": ["Box"]}, r"SAMPLE_GROUPS\.0"),
        (PASTING | {"REMOVE_EXTRA_WIDTH": [1]}, r"REMOVE_EXTRA_WIDTH"),
    ],
)
def test_wrong_entries_are_explained(entry, message):
    with pytest.raises(ConfigError, match=message):
        enabled(entry)


def test_a_class_that_the_database_has_not_is_refused(database):
    with pytest.raises(ConfigError, match=r"the database has no such class. Expected Box, Diver, found Car"):
        augmentations_of(enabled(PASTING | {"SAMPLE_GROUPS": ["Car:3"]}), database)


def enabled(*entries, disabled=()):
    """The entries of a config as it reads them."""
    tree = {"AUG_CONFIG_LIST": list(entries), "DISABLE_AUG_LIST": list(disabled)}
    return validate(DataAugmentor, json.loads(json.dumps(tree))).value.enabled


def test_files_of_points_of_another_kind_are_named_where_none_is_ours(tmp_path):
    write_sample_data(tmp_path / "d", train=2, val=1, points=200)
    for file in sorted((tmp_path / "d" / "points_binary").iterdir()):
        np.save(file.with_suffix(".npy"), read_points(file))
        file.unlink()
    with pytest.raises(UsageError, match=r"none for 1000000, 1000001, but files ending in \.npy"):
        folder(tmp_path / "d")


def test_a_class_in_other_letters_says_how_it_is_written(root):
    known = [Annotation(frame=a.frame, names=tuple(map(str.lower, a.names)), boxes=a.boxes) for a in annotations(root)]
    with pytest.raises(DamagedFile, match=r"an unknown class. Expected Box or Diver, found 'box'.*case: write Box"):
        folder(root, infos=known).sample(0, rng())


def annotations(root):
    return read_infos(root / "sonar_infos_train.npz")
