"""The commands that only look: what they say, that it is data on demand, and that they change nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.twin.killing import environment
from tests.unbroken.cli.typing_commands import Type, contents

RUN = Path("work_dirs/small")
WHY = ["why", "mapsage", "small.py"]
LOOKING = [
    WHY,
    [*WHY, "--json"],
    [*WHY, "--fresh"],
    [*WHY, "--tag", "new", "--search", "work_dirs"],
    [*WHY, "--cfg-options", "model.decode_head.channels=16"],
    ["ls"],
    ["ls", "--json"],
    ["show", str(RUN)],
    ["show", str(RUN), "--json"],
    ["inspect", str(RUN / "iter_4.pth")],
    ["inspect", str(RUN / "iter_4.pth"), "--json"],
    ["verify", str(RUN), str(RUN / "iter_4.pth")],
    ["verify", str(RUN), "--json"],
]


def test_looking_changes_nothing_and_loads_no_torch(here: Path) -> None:
    program = f"""
import json, sys
from unbroken.cli import main
for words in sorted(json.loads({json.dumps(json.dumps(LOOKING))}), key=lambda words: words[0] == "why"):
    code = main(words)
    assert code in (0, 13), (words, code)
    loaded = {{"torch", *({{"numpy", "cv2"}} if words[0] != "why" else ())}} & set(sys.modules)
    assert not loaded, (words, loaded)
"""
    before = contents(here)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert contents(here) == before


OWN = """
from pathlib import Path
from unbroken import Job, Recipe
from unbroken.config import Effect, Effects
def read(words, environment):
    return Job(recipe="mapsage", tag="small", directory=Path(words[0]), config={"lr": 0.1}, seed=0, total_steps=8,
               effects=Effects(own=Effect.FREE), lr_at=lambda step: 0.1, environment=environment)
recipe = Recipe(name="mapsage", read=read, usage=str)
"""
DEAR = (
    "pydantic",
    "numpy",
    "rich",
    "importlib.metadata",
    "email",
    "logging",
    "subprocess",
    "multiprocessing",
    "socket",
)
DEAR += ("tarfile", "difflib", "concurrent.futures", "unbroken.launch.execute", "unbroken.keep", "unbroken.logbook")


def test_why_of_a_run_with_history_loads_nothing_dear(here: Path, tmp_path: Path) -> None:
    (tmp_path / "own_recipe.py").write_text(OWN, "utf-8")
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r}); from unbroken.cli import main
code = main(["why", "own_recipe:recipe", {str(RUN)!r}]); print(code, *sorted(set({DEAR!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("plan: RESUME") and done.stdout.splitlines()[-1] == "0", done.stdout


def test_the_command_line_itself_loads_next_to_nothing() -> None:
    dear = {*DEAR, "dataclasses", "pathlib", "argparse", "inspect", "unbroken.storage", "unbroken.launch"}
    program = f"import sys, unbroken.cli; print(*sorted({dear!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


def test_why_says_the_plan_and_what_comes_next(here: Path, type_: Type) -> None:
    answer = type_(*WHY)
    assert answer.code == 0
    first, second, *_ = answer.out.splitlines()
    assert first.startswith(f"plan: RESUME - continue {RUN} at step 5 of 8, learning rate ")
    assert second == (
        "  because iter_4.pth has the furthest recorded step of this run (4), verified by whole-file digest"
    )
    assert "  changed: train_cfg.max_iters: 4 -> 8 (schedule)" in answer.out


@pytest.mark.parametrize("words", [["why", "--json", *WHY[1:]], [*WHY, "--json"]], ids=["before", "after"])
def test_why_as_data_has_the_facts(here: Path, type_: Type, words: list[str]) -> None:
    data = type_(*words).data
    assert (data["verdict"], data["step"], data["next_step"]) == ("Resume", 4, 5)
    assert Path(data["file"]) == RUN / "iter_4.pth"
    assert data["check"] == "verified by whole-file digest"
    assert [change["key"] for change in data["changes"]] == ["train_cfg.max_iters"]
    assert isinstance(data["lr_before"], float) and isinstance(data["lr_next"], float)
    assert data["run"] == str(RUN)


def test_why_of_a_refusal_has_its_exit_code(here: Path, type_: Type) -> None:
    answer = type_(*WHY, "--cfg-options", "model.decode_head.channels=16", "--json")
    assert answer.code == answer.data["exit_code"] == 13
    assert answer.data["verdict"] == "Refuse" and len(answer.data["ways_out"]) == 3


def test_why_points_to_a_run_of_the_same_config_under_another_name(finished: Path, type_: Type) -> None:
    answer = type_(*WHY, "--tag", "smal")
    assert answer.code == 0 and "plan: FRESH" in answer.out
    assert f"note: tag `small` has this config at step 8: {RUN}" in answer.out


def test_ls_has_one_aligned_line_per_run(here: Path, type_: Type) -> None:
    answer = type_("ls")
    head, line = answer.out.splitlines()
    assert head.split() == ["tag", "status", "step", "best", "last", "seen", "sessions", "size", "folder"]
    assert line.startswith("small") and "finished" in line and "4/4" in line and line.endswith(str(RUN))
    assert line.index("finished") == head.index("status")
    (data,) = type_("ls", "--json").data
    assert (data["tag"], data["status"], data["step"], data["total"]) == ("small", "finished", 4, 4)
    assert data["folder"] == str(RUN) and data["size_bytes"] > 10_000
    empty = here / "empty"
    empty.mkdir()
    assert type_("ls", "empty").out.startswith("no runs below empty")
    assert type_("ls", "empty", "--json").data == []


def test_show_tells_a_run(here: Path, type_: Type) -> None:
    answer = type_("show", RUN)
    assert answer.out.startswith("small (mapsage) - finished\n")
    for text in (
        "step: 4 of 4",
        "best: mIoU",
        "config: ",
        "command: unbroken train mapsage",
        "sessions",
        "evaluations",
    ):
        assert text in answer.out
    assert f"unchecked: not needed to go on; to read them all: unbroken verify {RUN}" in answer.out
    data = type_("show", RUN, "--json").data
    assert data["sessions"][0]["verdict"] == "fresh" and data["sessions"][0]["last"] == 4
    assert {file["file"]: file["state"] for file in data["files"]}["iter_4.pth"] == "good"
    assert json.loads(Path(data["config"]).read_text())["train_cfg"]["max_iters"] == 4
    assert data["evaluations"][0]["step"] == 4


def test_inspect_shows_any_checkpoint(here: Path, type_: Type) -> None:
    file = RUN / "iter_4.pth"
    answer = type_("inspect", file, "--no-tensors")
    assert answer.out.startswith(f"{file}: unbroken checkpoint (torch zip, ")
    assert "step: 4" in answer.out and "state_dict" in answer.out and "backbone" not in answer.out
    assert "state_dict.backbone.layers.0.0.projection.weight" in type_("inspect", file).out
    data = type_("inspect", file, "--json").data
    assert (data["kind"], data["step"]) == ("unbroken checkpoint", 4)
    shapes = {row["name"]: row["shape"] for row in data["tensors"]}
    assert shapes["state_dict.backbone.layers.0.0.projection.weight"] == [4, 3, 7, 7]
    best = next(RUN.glob("best_*.pth"))
    assert "optimizer: none, training cannot be resumed from this file" in type_("inspect", best).out


def test_verify_knows_whole_from_damaged(here: Path, type_: Type) -> None:
    assert type_("verify", RUN).out.endswith("are whole\n")
    raw = bytearray((RUN / "iter_4.pth").read_bytes())
    raw[len(raw) // 2] ^= 1
    (RUN / "iter_4.pth").write_bytes(raw)
    answer = type_("verify", RUN)
    assert answer.code == 12
    assert "damaged" in answer.out and "1 of 2 cannot be used" in answer.out
    states = {Path(fact["file"]).name: fact["state"] for fact in type_("verify", RUN, "--json").data}
    assert states["iter_4.pth"] == "damaged"
    assert [state for name, state in states.items() if name != "iter_4.pth"] == ["good"]


def test_something_that_is_no_checkpoint_is_said_to_be_none(here: Path, type_: Type) -> None:
    Path("notes.pth").write_text("not a checkpoint")
    answer = type_("inspect", "notes.pth")
    assert answer.code == 12 and "notes.pth: this is not a checkpoint" in answer.err
    assert type_("verify", "notes.pth").out.splitlines()[1].split()[:2] == ["damaged", "?"]


def test_data_writes_tiles_once(here: Path, type_: Type) -> None:
    first = type_("data", "aerial", "tiles")
    assert first.code == 0 and first.out.startswith("sample data for tiles: this can take a minute\n")
    assert "Wrote 96 training and 24 validation tiles" in first.out
    before = contents(here / "tiles")
    assert "Nothing to do" in type_("data", "aerial", "tiles").out
    assert contents(here / "tiles") == before
    other = type_("data", "aerial", "work_dirs")
    assert other.code == 2 and "the directory is in use" in other.err


def test_a_reader_that_went_away_is_no_fault(here: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m unbroken inspect {RUN / 'iter_4.pth'} | true",
        shell=True, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
