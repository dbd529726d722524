"""Results of an evaluation: exact round trips, texts, and what is said about files that are something else."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from focalsst.metrics import Detections, Labels, class_rules, evaluate
from focalsst.results import (
    named,
    read_detections,
    read_results,
    read_scores,
    write_detections,
    write_results,
    write_scores,
    write_texts,
)
from unbroken.errors import DamagedFile, NewerFormat, UsageError

BOXES = np.array([[11.4, 1.9, -0.1, 2.3, 2.2, 1.6, 3.0], [13.1, 0.4, 0.1, 1.3, 1.1, 1.7, -1.9]], np.float32)
SCORES = np.array([0.9, 0.3], np.float32)
FOUND = (
    Detections(frame_id="0130085", names=["Box", "Pedestrian"], boxes_N7=BOXES, scores_N=SCORES),
    Detections(frame_id="a_0140003", names=[], boxes_N7=BOXES[:0], scores_N=SCORES[:0]),
    Detections(frame_id="0160001", names=["Diver"], boxes_N7=BOXES[1:], scores_N=SCORES[1:]),
)
ARRAYS = {
    "frame_id": np.array(["1", "2"]),
    "box_frame": np.array([0, 1]),
    "box_name": np.array(["Box", "Diver"]),
    "box7": BOXES,
    "score": SCORES,
}


def as_plain(detections):
    return [(d.frame_id, list(d.names), d.boxes_N7.tolist(), d.scores_N.tolist()) for d in detections]


@pytest.mark.parametrize("detections", [FOUND, FOUND[1:2], ()])
def test_detections_come_back_bit_for_bit_and_the_same_ones_give_the_same_bytes(tmp_path, detections):
    size = write_detections(tmp_path / "deep" / "result.npz", detections)
    written = (tmp_path / "deep" / "result.npz").read_bytes()
    assert size == len(written)
    assert as_plain(read_detections(tmp_path / "deep" / "result.npz")) == as_plain(detections)
    write_detections(tmp_path / "deep" / "result.npz", detections)
    assert (tmp_path / "deep" / "result.npz").read_bytes() == written
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["result.npz"]


def test_a_whole_evaluation_is_written_and_judged_the_same_when_it_is_read(tmp_path):
    labels = [Labels(frame_id=d.frame_id, names=d.names, boxes_N7=d.boxes_N7) for d in FOUND]
    rules = class_rules(["Box", "Diver"], {"Box": "Car", "Diver": "Pedestrian"})
    scores = evaluate(labels, FOUND, rules)
    settings = {"checkpoint": "checkpoint_epoch_3.pth", "nms": 0.2}
    write_results(tmp_path, FOUND, scores, settings=settings, save_to_file=True)
    read = read_results(tmp_path)
    assert read.scores == named(scores)
    assert read.settings == settings
    assert evaluate(labels, read.detections, rules) == scores
    texts = tmp_path / "final_result" / "data"
    assert sorted(path.name for path in texts.iterdir()) == ["0130085.txt", "0160001.txt", "a_0140003.txt"]
    assert (texts / "0130085.txt").read_text().splitlines() == [
        "Box 11.4000 1.9000 -0.1000 2.3000 2.2000 1.6000 3.0000 0.900000",
        "Pedestrian 13.1000 0.4000 0.1000 1.3000 1.1000 1.7000 -1.9000 0.300000",
    ]
    assert (texts / "a_0140003.txt").read_text() == ""
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".partial")]


def test_texts_are_only_written_when_they_are_asked_for(tmp_path):
    scores = evaluate([], [], class_rules(["Box"], {"Box": "Car"}))
    write_results(tmp_path, [], scores, settings={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.npz"]


def test_a_frame_that_comes_twice_or_names_another_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a frame has detections twice. Expected each frame once, found 0130085"):
        write_detections(tmp_path / "result.npz", [*FOUND, FOUND[0]])
    stranger = Detections(frame_id="../secret", names=[], boxes_N7=BOXES[:0], scores_N=SCORES[:0])
    with pytest.raises(UsageError, match=r"cannot name a file. Found '../secret'"):
        write_texts(tmp_path, [stranger])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box_frame": np.array([0.0, 1.0])}, "Expected text, whole numbers, text, numbers and numbers"),
        ({"box_name": np.array([1, 2])}, "Expected text, whole numbers"),
        ({"box7": BOXES[:1]}, "one frame, one name, seven numbers and one score per box"),
        ({"box7": BOXES[:, :6]}, "seven numbers"),
        ({"score": SCORES[:, None]}, "one score per box"),
        ({"box_frame": np.array([0, 2])}, r"Expected box_frame rising within 0..1, found 0..2"),
        ({"box_frame": np.array([1, 0])}, "rising"),
        ({"box_frame": np.array([-1, 0])}, "rising"),
        ({"frame_id": np.array(["1", "1"])}, "Expected each frame once, found 1"),
        ({"score": np.array([np.nan, 0.5])}, "finite scores"),
        ({"box_name": np.array([None, "Box"])}, "the detections cannot be read"),
    ],
)
def test_arrays_that_are_no_detections_are_explained(tmp_path, changes, message):
    np.savez(tmp_path / "result.npz", **(ARRAYS | changes))
    with pytest.raises(DamagedFile, match=message) as caught:
        read_detections(tmp_path / "result.npz")
    assert caught.value.where == str(tmp_path / "result.npz")


def test_foreign_torn_and_missing_results_are_refused(tmp_path):
    (tmp_path / "result.npz").write_bytes(pickle.dumps([{"name": 1}]))
    with pytest.raises(DamagedFile, match=r"Expected a whole npz archive"):
        read_detections(tmp_path / "result.npz")
    np.savez(tmp_path / "result.npz", frame_id=np.array(["1"]))
    with pytest.raises(DamagedFile, match=r"hold other arrays"):
        read_detections(tmp_path / "result.npz")
    write_detections(tmp_path / "result.npz", FOUND)
    (tmp_path / "result.npz").write_bytes((tmp_path / "result.npz").read_bytes()[:-20])
    with pytest.raises(DamagedFile, match=r"cannot be read.* Evaluate the checkpoint again"):
        read_detections(tmp_path / "result.npz")
    with pytest.raises(UsageError, match=r"there is no such result"):
        read_results(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", DamagedFile, "the scores cannot be read"),
        ("[]", DamagedFile, "Expected format, scores and settings, each score a number, found list"),
        ("{}", DamagedFile, "found nothing"),
        ('{"scores": {}, "settings": {}}', DamagedFile, "found scores, settings"),
        ('{"format": "other 1", "scores": {}, "settings": {}}', DamagedFile, "another form"),
        ('{"format": "focalsst result 1", "scores": {"a": "b"}, "settings": {}}', DamagedFile, "each score a number"),
        ('{"format": "focalsst result 2", "scores": {}}', NewerFormat, "Expected focalsst result 1, found .* 2"),
    ],
)
def test_foreign_scores_are_explained(tmp_path, content, error, message):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(error, match=message):
        read_scores(tmp_path / "result.json")


def test_scores_and_settings_come_back_and_are_plain_json(tmp_path):
    write_scores(tmp_path / "result.json", {"mAP": 12.5}, settings={"tag": "试验", "seeds": [1, 2]})
    assert read_scores(tmp_path / "result.json") == ({"mAP": 12.5}, {"tag": "试验", "seeds": [1, 2]})
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["scores"] == {"mAP": 12.5}
    with pytest.raises(ValueError, match="JSON"):
        write_scores(tmp_path / "result.json", {"mAP": float("nan")}, settings={})
    assert read_scores(tmp_path / "result.json")[0] == {"mAP": 12.5}


@pytest.mark.parametrize("module", ["focalsst.results", "focalsst.conversion"])
def test_reading_and_converting_load_no_torch(module):
    program = f"import sys, {module}; raise SystemExit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
