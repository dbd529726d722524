"""`why` beyond the verdict: real shapes, the learning rate as a picture, what was accepted, whose run it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.twin.killing import environment
from tests.unbroken.cli.typing_commands import Type, contents

RUN = Path("work_dirs/small")
WHY = ["why", "mapsage", "small.py"]
TRAIN = ["train", "mapsage", "small.py"]
HEAD = "model.decode_head"
WIDER = ["--cfg-options", f"{HEAD}.channels=16"]
DROP_KEY = "model.decode_head.align_corners"
EACH_2 = "default_hooks.checkpoint.interval=2"
DROP = ["--cfg-options", f"{DROP_KEY}=True"]


# -- shapes ------------------------------------------------------------------------------------------------------------


def test_shapes_counts_the_tensors_that_would_not_fit(here: Path, type_: Type) -> None:
    said = type_(*WHY, *WIDER, "--shapes", "--json")
    fit = said.data["fit"]
    assert said.code == 13 and not fit["complete"]
    assert 0 < len(fit["misfit"]) < fit["tensors"] and not fit["missing"] and not fit["unused"]
    assert all("decode_head" in name for name in fit["misfit"])
    words = type_(*WHY, *WIDER, "--shapes").out
    assert f"{len(fit['misfit'])} of {fit['tensors']} tensors would not fit" in words
    assert re.search(r"decode_head\S+ \[16,.*\] in the model, \[\d+,.*\] in the file", words)


def test_what_train_refuses_has_the_same_numbers(here: Path, type_: Type) -> None:
    words = type_(*WHY, *WIDER, "--shapes").out
    refused = type_(*TRAIN, *WIDER)
    assert refused.code == 13
    assert refused.err.strip() == words.strip()


def test_shapes_of_an_unchanged_config_change_nothing_in_the_plan(here: Path, type_: Type) -> None:
    before = contents(here)
    shapes, plain = (re.sub(r"until .*", "", type_(*WHY, *words).out) for words in (["--shapes"], []))
    assert shapes == plain  # but for the moment of the end, counted from now
    assert contents(here) == before


def test_without_shapes_no_torch_is_loaded_and_with_them_no_file_is_written(here: Path) -> None:
    program = f"""
import sys
from unbroken.cli import main
assert main({[*WHY, *WIDER, "--plot", "lr.png"]!r}) == 2 and "torch" not in sys.modules
assert main({[*WHY, "--plot", "lr.png"]!r}) == 0 and "torch" not in sys.modules
assert main({[*WHY, "--shapes"]!r}) == 0 and "torch" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (here / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_whose_code_changed_is_refused_before_anything_is_touched(here: Path, type_: Type) -> None:
    """The config is the same, but the file's tensors are of another network."""
    from unbroken.storage import Disk
    from unbroken.train.state.serialise import read_tree, write_tree

    file = RUN / "iter_4.pth"
    tree = read_tree(file)
    name = next(key for key in tree["state_dict"] if key.endswith("conv_seg.weight"))
    tree["state_dict"]["decode_head.renamed.weight"] = tree["state_dict"].pop(name)
    file.unlink()
    (RUN / "unbroken/manifests/iter_4.pth.json").unlink()
    disk = Disk()
    opened = disk.create(file)
    write_tree(opened, tree)
    disk.close(opened)
    before = contents(here)

    said = type_(*WHY, "--shapes")

    assert said.code == 13
    assert "does not fit the model any more" in said.out and "the program that builds the model is another" in said.out
    assert "unfit: decode_head.renamed.weight is only in the file" in said.out
    assert contents(here) == before
    assert type_(*TRAIN).code == 13
    assert {path for path in contents(here) if path.endswith(".pth")} == {p for p in before if p.endswith(".pth")}


# -- the learning rate -------------------------------------------------------------------------------------------------


def test_a_longer_schedule_is_drawn_with_what_was_used_and_what_is_to_come(here: Path, type_: Type) -> None:
    said = type_(*WHY)
    lines = said.out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("  learning rate (. was used"))
    plot = lines[start + 1 :]
    assert all("|" in line for line in plot[:9]) and plot[9].split() == ["1", "8"]
    assert sum(line.count("#") for line in plot[:9]) >= 3 and sum(line.count(".") for line in plot[:9]) >= 3
    assert max(map(len, lines[start:])) <= 80


def test_where_nothing_moves_the_rate_there_is_no_plot(finished: Path, type_: Type) -> None:
    assert "learning rate (" not in type_(*WHY).out


@pytest.mark.parametrize("name", ["lr.svg", "folder/lr.png", "lr.nothing"])
def test_a_picture_of_any_kind_or_an_error_that_says_what_is_wrong(here: Path, type_: Type, name: str) -> None:
    said = type_(*WHY, "--plot", name)
    if name == "lr.svg":
        assert said.code == 0 and "<svg" in (here / name).read_text("utf-8")
    else:
        assert said.code == 2 and "the picture cannot be written" in said.err and "Traceback" not in said.err


def test_plot_without_a_file_is_a_mistake_that_is_explained(here: Path, type_: Type) -> None:
    said = type_(*WHY, "--plot")
    assert said.code == 2 and "--plot lr.png" in said.err


# -- what was accepted -------------------------------------------------------------------------------------------------


def test_an_accepted_change_of_meaning_is_recorded_for_ever(here: Path, type_: Type) -> None:
    refused = type_(*WHY, *DROP)
    assert refused.code == 13 and f"--accept-change {DROP_KEY}" in refused.out

    accepted = type_(*TRAIN, *DROP, "--accept-change", DROP_KEY)

    assert accepted.code == 0
    assert f"accepted: {DROP_KEY}, which is recorded in the run for ever" in accepted.out
    shown = type_("show", RUN)
    assert f"accepted: {DROP_KEY}: False -> True (meaning), after step 4" in shown.out
    assert type_("show", RUN, "--json").data["accepted"] == [f"{DROP_KEY}: False -> True (meaning), after step 4"]
    again = type_(*WHY, *DROP, "--accept-change", DROP_KEY)
    assert f"note: accepted after step 4: {DROP_KEY}: False -> True (meaning)" in again.out
    assert "nothing to accept" not in again.out


def test_the_record_of_what_was_accepted_is_in_each_checkpoint(here: Path, type_: Type) -> None:
    type_(*TRAIN, *DROP, "--accept-change", DROP_KEY)
    alone = here / "alone"
    alone.mkdir()
    shutil.copyfile(RUN / "iter_8.pth", alone / "iter_8.pth")
    assert f"accepted: {DROP_KEY}" in type_("show", alone).out


def test_a_key_that_no_config_has_cannot_be_accepted(here: Path, type_: Type) -> None:
    said = type_(*WHY, *DROP, "--accept-change", "model.decode_head.align_corner")
    assert said.code == 2
    assert f"way out: --accept-change {DROP_KEY}" in said.out


def test_accepting_what_did_not_change_is_said_to_do_nothing(here: Path, type_: Type) -> None:
    said = type_(*WHY, "--accept-change", DROP_KEY)
    assert said.code == 0
    assert f"--accept-change {DROP_KEY} had nothing to accept" in said.out


def test_a_change_of_shape_cannot_be_accepted_away(here: Path, type_: Type) -> None:
    before = {path: digest for path, digest in contents(here).items() if path.endswith(".pth")}
    said = type_(*WHY, *WIDER, "--accept-change", f"{HEAD}.channels")
    assert said.code == 13 and "whatever is accepted" in said.out and "undo the change" in said.out
    assert type_(*TRAIN, *WIDER, "--accept-change", f"{HEAD}.channels").code == 13
    assert {path: digest for path, digest in contents(here).items() if path.endswith(".pth")} == before


# -- whose run it is ---------------------------------------------------------------------------------------------------


def test_families_are_shown_as_a_tree(here: Path, type_: Type) -> None:
    parent = RUN / "iter_4.pth"
    child = [*TRAIN, "--work-dir", "work_dirs/child", "--pretrained_model", parent]
    grandchild = [*TRAIN, "--work-dir", "work_dirs/grand", "--pretrained_model", "work_dirs/child/iter_8.pth"]
    assert type_(*child).code == type_(*grandchild).code == 0

    rows = [re.split(r"(?<=\S)  ", line)[0] for line in type_("ls", "--tree").out.splitlines()]
    assert rows == ["tag", "small", "└─ child (from step 4)", "   └─ grand (from step 8)"]

    lines = type_("show", "work_dirs/grand").out.splitlines()
    assert any(line.startswith("began from: work_dirs/child/iter_8.pth (step 8 of `child`, sha256 ") for line in lines)
    assert any(line.startswith(f"which began from: {parent} (step 4 of `small`, sha256 ") for line in lines)
    assert len(type_("show", "work_dirs/grand", "--json").data["lineage"]) == 2


def test_a_run_that_goes_on_under_another_name_began_once_and_is_no_copy(here: Path, type_: Type) -> None:
    onward = ["--tag", "onward", "--cfg-options", f"load_from={RUN / 'iter_4.pth'}", "resume=True", EACH_2]
    later = ["--tag", "later", "--cfg-options", "load_from=work_dirs/onward/iter_6.pth", "resume=True", EACH_2]
    assert type_(*TRAIN, *onward).code == type_(*TRAIN, *later).code == 0

    def began(run: str) -> list[str]:
        return [
            line.split(" (")[0] for line in type_("show", f"work_dirs/{run}").out.splitlines() if "began from" in line
        ]

    assert began("onward") == [f"began from: {RUN / 'iter_4.pth'}"]
    assert began("later") == ["began from: work_dirs/onward/iter_6.pth", f"which began from: {RUN / 'iter_4.pth'}"]
    rows = [re.split(r"(?<=\S)  ", line)[0] for line in type_("ls").out.splitlines()]
    assert rows == ["tag", "later (goes on from small)", "onward (goes on from small)", "small"]
    said = type_("compare", "onward", "small").out
    assert "onward goes on from small: the same run" in said and "copy" not in said


def test_a_circle_in_edited_records_is_no_endless_loop(here: Path, type_: Type) -> None:
    record = RUN / "unbroken/run.json"
    data = json.loads(record.read_text("utf-8"))
    data["parent"] = {"file": str(RUN / "iter_4.pth"), "step": 4, "run": data["id"]}
    record.write_text(json.dumps(data), "utf-8")
    assert type_("ls", "--tree").code == type_("show", RUN).code == 0


def test_a_refused_launch_does_not_take_the_place_of_the_session_that_died(here: Path, type_: Type) -> None:
    holder = RUN / "unbroken/holder.json"
    dead = {"host": "node7", "pid": 4711, "since": "2026-11-20T22:01:05+00:00", "session": "s", "released": False}
    holder.write_text(json.dumps(dead), "utf-8")
    assert type_(*TRAIN, *WIDER).code == 13
    assert json.loads(holder.read_text("utf-8")) == dead
    assert "process 4711 on node7" in type_(*WHY).out
    holder.unlink()
    assert type_(*TRAIN, *WIDER).code == 13
    assert not holder.exists()
