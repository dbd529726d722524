"""The rows of the launch table: what is on disk and what was asked, made by hand; nothing here touches a disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unbroken.config import Effect, Effects
from unbroken.launch import Facts, Job, Start
from unbroken.launch.extension import Extension
from unbroken.run import Candidate, RunRecord, Survey
from unbroken.storage.lock import Holder

RUN, OTHER = "1f0e4c2a9b7d5836", "77aa00bb11cc22dd"
FOLDER = Path("work_dirs/baseline")
CONFIG: dict[str, Any] = {
    "model": {"width": 64, "classes": ["road", "roof"]},
    "train": {"lr": 0.01, "max_iters": 400},
    "data": {"crop": 512},
    "workers": 4,
}
EFFECTS = Effects(
    fields={
        "model": Effects(
            fields={
                "width": Effects(own=Effect.SHAPE),
                "classes": Effects(own=Effect.MEANING),
                "depth": Effects(own=Effect.SHAPE),
            }
        ),
        "train": Effects(own=Effect.SCHEDULE),
        "data": Effects(own=Effect.DATA),
        "workers": Effects(own=Effect.FREE),
    }
)
HOLDER = Holder(host="node7", pid=4711, since="2026-11-20T22:01:05+00:00", session="20261120_220105", released=False)
RECORD = RunRecord(id=RUN, recipe="mapsage", tag="baseline", created="2026-11-20T20:00:00+00:00", seed=0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: its place in the contract in words, the question, and where it belongs."""

    title: str
    job: Job
    facts: Facts


def falling_rate(config: dict[str, Any], total: int) -> Callable[[int], float]:
    rate: float = config["train"]["lr"]
    return lambda step: rate * (1 - step / total)


def ended_rate(config: dict[str, Any], _total: int) -> Callable[[int], float]:
    rate: float = config["train"]["lr"]
    return lambda step: rate * max(0.0, 1 - step / 399)


def job(
    config: dict[str, Any] | None = None,
    *,
    total: int | None = 400,
    recipe: str = "mapsage",
    rate: Callable[[dict[str, Any], int], Callable[[int], float]] = falling_rate,
    **start: Any,
) -> Job:
    return Job(
        recipe=recipe,
        tag="baseline",
        directory=FOLDER,
        config=config or CONFIG,
        effects=EFFECTS,
        seed=0,
        total_steps=total,
        start=Start(**start),
        command="python scripts/train.py configs/base.py",
        lr_at=rate(config or CONFIG, total or 400),
    )


def changed(**keys: Any) -> dict[str, Any]:
    """The config with some keys replaced: `model__width=128`."""
    result = {name: dict(part) if isinstance(part, dict) else part for name, part in CONFIG.items()}
    for key, value in keys.items():
        section, _, name = key.partition("__")
        if name:
            result[section][name] = value
        else:
            result[section] = value
    return result


def saved(step: int, state: str = "good", **facts: Any) -> Candidate:
    reasons = {
        "good": "verified by whole-file sha256",
        "damaged": "the file is cut off: 8,192 of 24,490 bytes are there",
    }
    known: dict[str, Any] = {
        "path": FOLDER / f"iter_{step}.pth",
        "step": step,
        "kind": "checkpoint",
        "state": state,
        "reason": reasons.get(state, ""),
        "run": RUN,
        "format_name": "unbroken checkpoint" if state == "good" else "",
        "inside": {"config": CONFIG, "lr": 0.01 * (1 - (step - 1) / 400), "epoch": step // 50, "total": 400}
        if state == "good"
        else {},
    }
    return Candidate(**{**known, **facts})


def best(step: int, **facts: Any) -> Candidate:
    path = FOLDER / f"best_mIoU_iter_{step}.pth"
    return saved(step, facts.pop("state", "unchecked"), **{"path": path, "kind": "weights", **facts})


def foreign(step: int, state: str = "good", **facts: Any) -> Candidate:
    known = {"kind": "foreign checkpoint", "run": "", "format_name": "MMEngine checkpoint", "inside": {}}
    return saved(step, state, **{**known, "reason": "verified by zip CRC" if state == "good" else "", **facts})


def newer(step: int) -> Candidate:
    return saved(step, "newer", reason="format 2, this version knows 1", format_name="unbroken checkpoint")


def found(*candidates: Candidate, **facts: Any) -> Survey:
    """A run with saves; its candidates furthest first, as a survey has them."""
    own = sum(item.resumable and item.run == RUN for item in candidates)
    known: dict[str, Any] = {
        "directory": FOLDER,
        "exists": True,
        "record": RECORD,
        "candidates": tuple(sorted(candidates, key=lambda item: -item.step)),
        "saves_ever": own,
        "sessions": ("20261120_200000",),
    }
    return Survey(**{**known, **facts})


NOTHING = Survey(directory=FOLDER, exists=False)
BARE: dict[str, Any] = {"record": None, "saves_ever": 0, "sessions": ()}  # `unbroken/` is gone


def copy(folder: str, *candidates: Candidate, **facts: Any) -> Survey:
    place = Path(folder)
    moved = [replace(item, path=place / item.name) for item in candidates]
    return found(*moved, **{"directory": place, **facts})


def row(title: str, facts: Facts | Survey, asked: Job | None = None) -> Row:
    return Row(title=title, job=asked or job(), facts=facts if isinstance(facts, Facts) else Facts(survey=facts))


LONGER = changed(train__max_iters=800)
ENDED = {"config": CONFIG, "lr": 0.0, "epoch": 8, "total": 400}
EXTENDED = {
    "config": LONGER,
    "lr": 0.00375,
    "epoch": 10,
    "total": 800,
    "extension": Extension(
        policy="rewarm", seam=400, total=800, warmup_steps=20, cycle_steps=800, lr=2.5e-5
    ).as_plain(),
}
ELSEWHERE_FILE = Path("backup/iter_200.pth")
WEIGHTS = best(
    80,
    path=Path("weights/best_mIoU_iter_80.pth"),
    state="good",
    kind="foreign weights",
    format_name="MMEngine weights",
    run="",
)

ROWS = (
    # nothing, and beginnings
    row("nothing on disk", NOTHING),
    row(
        "nothing on disk, and the tag was perhaps mistyped",
        Facts(
            survey=NOTHING,
            near=("tag `baselin` has this config at step 300: work_dirs/baselin",),
        ),
    ),
    row("killed before the first save", found(saves_ever=0, holder=HOLDER)),
    row("killed before the first save, the file half written", found(saves_ever=0, partials=("iter_10.pth.partial",))),
    row(
        "a folder of somebody else's files, best weights of a lost run among them",
        found(
            best(300, run=OTHER),
            **BARE,
        ),
    ),
    # resuming
    row(
        "good checkpoints, same config", found(saved(300), saved(200, "unchecked"), saved(100, "unchecked"), best(250))
    ),
    row("the last session died: its lock is taken over", found(saved(300), holder=HOLDER)),
    row("newest damaged, older good", found(saved(300, "damaged"), saved(200), saved(100, "unchecked"))),
    row(
        "the two newest damaged, and damaged best weights",
        found(
            saved(300, "damaged"),
            saved(200, "damaged"),
            saved(100),
            best(300, state="damaged", reason="the file is empty"),
        ),
    ),
    row("latest.pth became a real copy", found(saved(300), saved(300, "unchecked", path=FOLDER / "latest.pth"))),
    row("all steps done, killed before the end was recorded", found(saved(400))),
    # history without a good checkpoint
    row("every checkpoint damaged", found(saved(300, "damaged"), saved(200, "damaged"))),
    row("the only checkpoint damaged, others deleted by hand", found(saved(300, "damaged"), saves_ever=3)),
    row("checkpoints deleted by hand, best weights still here", found(best(250), saves_ever=3)),
    row("every checkpoint damaged, --fresh", found(saved(300, "damaged")), job(fresh=True)),
    row("every checkpoint damaged, in the user's own script", found(saved(300, "damaged")), job(recipe="open_run")),
    # finished
    row("finished", found(saved(400), saved(300, "unchecked"), finished_at=400)),
    row(
        "finished, own script: the length is known only to the loop",
        found(saved(400), finished_at=400),
        job(total=None, recipe="open_run"),
    ),
    row(
        "finished, own script, config changed: the loop decides",
        found(saved(400), finished_at=400),
        job(changed(train__max_iters=800), total=None, recipe="open_run"),
    ),
    row(
        "finished, and more steps are asked for",
        found(saved(400), finished_at=400),
        job(changed(train__max_iters=800), total=800),
    ),
    *(
        row(
            f"finished, and more steps are asked for --on-extend {policy}",
            found(saved(400), finished_at=400),
            job(changed(train__max_iters=800), total=800, on_extend=policy),
        )
        for policy in ("stretch", "hold", "restart")
    ),
    row(
        "finished, more steps are asked for, the schedule was not made longer",
        found(saved(400, inside=ENDED), finished_at=400),
        job(changed(train__max_iters=800), total=800, rate=ended_rate),
    ),
    row(
        "finished at a learning rate of 0, --on-extend hold",
        found(saved(400, inside=ENDED), finished_at=400),
        job(changed(train__max_iters=800), total=800, on_extend="hold"),
    ),
    row(
        "finished, more steps are asked for, and the schedule goes on where it was",
        found(saved(400, inside={**ENDED, "lr": 0.005}), finished_at=400),
        job(changed(train__max_iters=800), total=800),
    ),
    row(
        "extended, and killed before the first save",
        found(saved(400), sessions=("20261120_200000", "20261121_080000")),
        job(changed(train__max_iters=800), total=800),
    ),
    row("extended, and killed after a save", found(saved(500, inside=EXTENDED)), job(LONGER, total=800)),
    row(
        "extended, killed after a save, and another --on-extend",
        found(saved(500, inside=EXTENDED)),
        job(LONGER, total=800, on_extend="hold"),
    ),
    row(
        "extended, killed after a save, and still more steps are asked for",
        found(saved(500, inside=EXTENDED)),
        job(changed(train__max_iters=900), total=900),
    ),
    row(
        "extended, finished again, and still more steps are asked for",
        found(saved(800, inside={**EXTENDED, "lr": 0.0}), finished_at=800),
        job(changed(train__max_iters=1000), total=1000),
    ),
    row("not finished, and --on-extend", found(saved(300)), job(on_extend="restart")),
    row("finished, nothing more asked for, and --on-extend", found(saved(400), finished_at=400), job(on_extend="hold")),
    row("finished, and its last checkpoint is damaged", found(saved(400, "damaged"), saved(300), finished_at=400)),
    row("finished, and the width was changed", found(saved(400), finished_at=400), job(changed(model__width=128))),
    row(
        "finished, and the learning rate was changed", found(saved(400), finished_at=400), job(changed(train__lr=0.02))
    ),
    row("finished + --fresh", found(saved(400), finished_at=400), job(fresh=True)),
    row("stopped + --fresh", found(saved(200), best(150)), job(fresh=True)),
    row("nothing on disk + --fresh", NOTHING, job(fresh=True)),
    row("fewer steps asked for than are on disk", found(saved(300)), job(changed(train__max_iters=200), total=200)),
    # held
    row("held by a live process", found(saved(300), held=True, holder=HOLDER)),
    row("held by a live process + --fresh", found(saved(300), held=True, holder=HOLDER), job(fresh=True)),
    # config changes
    row("free key changed", found(saved(200)), job(changed(workers=8))),
    row("schedule changed: LR now -> LR next", found(saved(200)), job(changed(train__lr=0.02))),
    row("data changed", found(saved(200)), job(changed(data__crop=256))),
    row("shape changed", found(saved(200)), job(changed(model__width=128))),
    row(
        "shape changed, in the user's own script", found(saved(200)), job(changed(model__width=128), recipe="open_run")
    ),
    row("meaning changed", found(saved(200)), job(changed(model__classes=["roof", "road"]))),
    row(
        "shape, meaning and schedule changed",
        found(saved(200)),
        job(
            changed(model__width=128, model__classes=["roof", "road"], train__lr=0.02),
        ),
    ),
    row("a key appeared that changes the shape", found(saved(200)), job(changed(model__depth=3))),
    row(
        "shape changed and accepted",
        found(saved(200)),
        job(
            changed(model__width=128),
            accepted=frozenset({"model.width"}),
        ),
    ),
    # files that were named
    row(
        "--ckpt an older checkpoint, newer ones exist",
        Facts(
            survey=found(saved(300), saved(200), saved(100, "unchecked")),
            exact=saved(200),
        ),
        job(exact=FOLDER / "iter_200.pth"),
    ),
    row(
        "--ckpt a file from another folder",
        Facts(
            survey=NOTHING,
            exact=saved(200, path=ELSEWHERE_FILE),
        ),
        job(exact=ELSEWHERE_FILE),
    ),
    row(
        "--ckpt a checkpoint of another run, into a run with its own history",
        Facts(
            survey=found(saved(300)),
            exact=saved(200, path=ELSEWHERE_FILE, run=OTHER),
        ),
        job(exact=ELSEWHERE_FILE),
    ),
    row(
        "--ckpt a damaged file",
        Facts(
            survey=found(saved(300)),
            exact=saved(200, "damaged"),
        ),
        job(exact=FOLDER / "iter_200.pth"),
    ),
    row("--ckpt weights only", Facts(survey=found(saved(300), WEIGHTS), exact=WEIGHTS), job(exact=WEIGHTS.path)),
    row(
        "--ckpt a file that is no checkpoint",
        Facts(
            survey=found(saved(300)),
            exact=saved(-1, path=Path("logits.pth"), kind="unknown", format_name="unknown", inside={}),
        ),
        job(exact=Path("logits.pth")),
    ),
    row(
        "--ckpt and --fresh",
        Facts(survey=found(saved(300)), exact=saved(300)),
        job(exact=FOLDER / "iter_300.pth", fresh=True),
    ),
    row(
        "--ckpt, and the width was changed",
        Facts(survey=found(saved(300)), exact=saved(300)),
        job(changed(model__width=128), exact=FOLDER / "iter_300.pth"),
    ),
    row("--pretrained_model + empty run", Facts(survey=NOTHING, weights=WEIGHTS), job(weights=WEIGHTS.path)),
    row(
        "--pretrained_model damaged",
        Facts(
            survey=NOTHING,
            weights=replace(WEIGHTS, state="damaged", reason="the file is empty"),
        ),
        job(weights=WEIGHTS.path),
    ),
    row("--pretrained_model + run with own history", found(saved(300)), job(weights=WEIGHTS.path)),
    row(
        "--pretrained_model + run with own history + --fresh",
        Facts(survey=found(saved(300)), weights=WEIGHTS),
        job(weights=WEIGHTS.path, fresh=True),
    ),
    row(
        "load_from with resume=True, a full MMEngine checkpoint",
        Facts(
            survey=NOTHING,
            origin=foreign(200, path=ELSEWHERE_FILE),
        ),
        job(origin=ELSEWHERE_FILE),
    ),
    row("load_from with resume=True, weights only", Facts(survey=NOTHING, origin=WEIGHTS), job(origin=WEIGHTS.path)),
    row("load_from with resume=True, gone on since", found(saved(300)), job(origin=ELSEWHERE_FILE)),
    # elsewhere
    row(
        "empty here, a copy in a mounted input",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("/kaggle/input/last-night", saved(200), saved(100, "unchecked")),),
        ),
        job(search=(Path("/kaggle/input"),)),
    ),
    row(
        "two copies: the furthest step",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("/kaggle/input/monday", saved(200)), copy("/kaggle/input/tuesday", saved(300))),
        ),
    ),
    row(
        "a copy whose newest checkpoint was truncated by the upload",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("/kaggle/input/last-night", saved(300, "damaged"), saved(200)),),
        ),
    ),
    row(
        "copies elsewhere, all damaged: no silent start from nothing",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("/kaggle/input/last-night", saved(300, "damaged")),),
        ),
    ),
    row(
        "damaged here, a good copy elsewhere",
        Facts(
            survey=found(saved(300, "damaged")),
            elsewhere=(copy("/mnt/backup/baseline", saved(200)),),
        ),
    ),
    row("a folder to search is not there", Facts(survey=NOTHING, missing=(Path("/kaggle/input"),))),
    row(
        "a copy elsewhere of a newer format",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("/kaggle/input/last-night", newer(300), saved(200)),),
        ),
    ),
    # files of others, and lost records
    row("a checkpoint of a newer format", found(newer(300), saved(200, "unchecked"))),
    row("a newer format belongs to another run: not ours to refuse", found(replace(newer(900), run=OTHER), saved(200))),
    row("a checkpoint of another run was copied in", found(saved(900, "unchecked", run=OTHER), saved(200))),
    row("nothing saved yet, only a checkpoint of another run", found(saved(900, "unchecked", run=OTHER), saves_ever=0)),
    row("MMEngine's folder, first launch", found(foreign(200), foreign(100, "unchecked"), **BARE)),
    row("MMEngine's folder, killed before our first save", found(foreign(200), saves_ever=0)),
    row("a foreign checkpoint in a run with its own saves", found(foreign(900, "unchecked"), saved(200))),
    row("a foreign checkpoint, own saves all damaged", found(foreign(900, "unchecked"), saved(200, "damaged"))),
    row("record lost, checkpoints there", found(saved(300), record=None)),
    row("journal lost, checkpoints there", found(saved(300), saves_ever=0, sessions=())),
    row(
        "journal lost, a foreign checkpoint further than ours",
        found(
            foreign(900, "unchecked"),
            saved(300),
            saves_ever=0,
            sessions=(),
        ),
    ),
    row("unbroken/ lost entirely, checkpoints there", found(saved(300, reason="verified by zip CRC"), **BARE)),
    row(
        "unbroken/ lost entirely, checkpoints of two runs",
        found(
            saved(300, run=OTHER),
            saved(200, "unchecked"),
            **BARE,
        ),
    ),
    row("manifests lost", found(saved(300, reason="verified by zip CRC"), saved(200, "unchecked"))),
)
