"""The rows of the launch table: what is on disk and what was asked; nothing here touches a disk.

`test_every_row_is_done` lays each of them out as real files, so that no row says what cannot be.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.golden.copy_rows import COPY_ROWS
from tests.golden.launch_facts import (
    BARE,
    ELSEWHERE_FILE,
    EMPTY,
    ENDED,
    FOLDER,
    HOLDER,
    LONGER,
    NOTHING,
    OTHER,
    RECORD,
    WEIGHTS,
    best,
    changed,
    copy,
    ended_rate,
    extended,
    foreign,
    found,
    gone,
    inside,
    job,
    newer,
    rate_to_zero,
    saved,
)
from tests.golden.row import row
from unbroken.launch import Facts
from unbroken.launch.verdicts import Fit
from unbroken.run import Restoring

ROWS = (
    # nothing, and beginnings
    row("nothing on disk", NOTHING),
    row(
        "nothing on disk, and the tag was perhaps mistyped",
        Facts(
            survey=NOTHING,
            near=("tag `baselin` has this config at step 300: work_dirs/baselin",),
        ),
        beside=(copy("work_dirs/baselin", saved(300, run=OTHER), record=replace(RECORD, id=OTHER, tag="baselin")),),
    ),
    row(
        "nothing on disk, and a run of this name and config lies in another folder nearby",
        Facts(
            survey=NOTHING,
            near=(
                "other/work_dirs/baseline is a run of this name with this config, at step 300; to go on with a copy of "
                "it here: --search other/work_dirs/baseline",
            ),
        ),
        beside=(copy("other/work_dirs/baseline", saved(300)),),
    ),
    row(
        "nothing on disk, and the schedule ends in the middle of the training",
        NOTHING,
        job(changed(train__max_iters=800), total=800, rate=ended_rate),
    ),
    row("nothing on disk, and the schedule comes to 0 in the last step", NOTHING, job(rate=rate_to_zero)),
    row("killed before the first save", found(saves_ever=0, holder=HOLDER)),
    row("killed before the first save, the file half written", found(saves_ever=0, partials=("iter_10.pth.partial",))),
    row(
        "a folder of somebody else's files, best weights of a lost run among them",
        found(
            best(300, run=OTHER, listed=False),
            **BARE,
        ),
    ),
    # resuming
    row(
        "good checkpoints, same config", found(saved(300), saved(200, "unchecked"), saved(100, "unchecked"), best(250))
    ),
    row("saved by four processes, and continued by one", found(saved(300, inside=inside(300, processes=4)))),
    row("the last session died: its lock is taken over", found(saved(300), holder=HOLDER)),
    row("newest damaged, older good", found(saved(300, "damaged"), saved(200), saved(100, "unchecked"))),
    row(
        "the two newest damaged, and damaged best weights",
        found(
            saved(300, "damaged"),
            saved(200, "damaged"),
            saved(100),
            best(300, state="damaged", reason=EMPTY),
        ),
    ),
    row("the newest checkpoint that the journal records is not here", found(saved(300), missing=(gone(380),))),
    row(
        "the two newest are not here, the next is damaged, and the best weights are gone",
        found(
            saved(280, "damaged"),
            saved(260),
            missing=(gone(380), gone(300), gone(250, name="best_mIoU_iter_250.pth", kind="weights")),
        ),
    ),
    row(
        "the newest is a link to a disk that is not there",
        found(saved(300), missing=(gone(380, reason="is a link to /media/old/iter_380.pth, which is not there"),)),
    ),
    row("an older checkpoint was taken away by hand", found(saved(300), missing=(gone(200),))),
    row(
        "finished, and its last checkpoint is not here",
        found(saved(300), missing=(gone(400),), finished_at=400),
    ),
    row(
        "only links to a disk that is not there, and no records",
        found(
            missing=(
                gone(300, reason="is a link to /media/old/iter_300.pth, which is not there", known_by="", saved_at=""),
            ),
            **BARE,
        ),
    ),
    row(
        "latest.pth became a real copy",
        found(saved(300), saved(300, "unchecked", path=FOLDER / "latest.pth", listed=False)),
    ),
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
        job(recipe="open_run"),
    ),
    row(
        "finished, own script, config changed: the loop decides",
        found(saved(400), finished_at=400),
        job(changed(train__max_iters=800), recipe="open_run"),
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
        "finished at a learning rate of 0, and more steps are asked for",
        found(saved(400, inside=ENDED), finished_at=400),
        job(changed(train__max_iters=800), total=800),
    ),
    row(
        "finished at a learning rate of 0, and two more steps are asked for",
        found(saved(400, inside=ENDED), finished_at=400),
        job(changed(train__max_iters=402), total=402, rate=rate_to_zero),
    ),
    row(
        "stopped before the schedule ended, and more steps are asked for than it has",
        found(saved(300)),
        job(changed(train__max_iters=800), total=800, rate=ended_rate),
    ),
    row(
        "finished, more steps are asked for, and the schedule goes on where it was",
        found(saved(400, inside=inside(400, lr=0.005)), finished_at=400),
        job(changed(train__max_iters=800), total=800),
    ),
    row(
        "extended, and killed before the first save",
        found(saved(400), sessions=("20261120_200000", "20261121_080000")),
        job(changed(train__max_iters=800), total=800),
    ),
    row("extended, and killed after a save", found(saved(500, inside=extended(500))), job(LONGER, total=800)),
    row(
        "extended, killed after a save, and another --on-extend",
        found(saved(500, inside=extended(500))),
        job(LONGER, total=800, on_extend="hold"),
    ),
    row(
        "extended, killed after a save, and still more steps are asked for",
        found(saved(500, inside=extended(500))),
        job(changed(train__max_iters=900), total=900),
    ),
    row(
        "extended, finished again, and still more steps are asked for",
        found(saved(800, inside=extended(800)), finished_at=800),
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
        "a change that may change the shape was accepted, and the tensors fit",
        found(saved(200)),
        job(changed(model__depth=3), accepted=frozenset({"model.depth"})),
    ),
    row(
        "shape changed and accepted, and the tensors were compared (--shapes)",
        Facts(
            survey=found(saved(200)),
            fit=Fit(tensors=2, misfit=("weight [2, 128] in the model, [2, 64] in the file",)),
        ),
        job(changed(model__width=128), accepted=frozenset({"model.width"})),
    ),
    # files that were named
    row(
        "--ckpt an older checkpoint, newer ones exist",
        Facts(
            survey=found(saved(300), saved(200, "unchecked"), saved(100, "unchecked")),
            exact=saved(200),
        ),
        job(exact=FOLDER / "iter_200.pth"),
    ),
    row(
        "--ckpt a file from another folder",
        Facts(
            survey=NOTHING,
            exact=saved(200, path=ELSEWHERE_FILE, listed=False),
        ),
        job(exact=ELSEWHERE_FILE),
    ),
    row(
        "--ckpt a checkpoint of another run, into a run with its own history",
        Facts(
            survey=found(saved(300)),
            exact=saved(200, path=ELSEWHERE_FILE, run=OTHER, listed=False),
        ),
        job(exact=ELSEWHERE_FILE),
    ),
    row(
        "--ckpt a damaged file",
        Facts(
            survey=found(saved(300), saved(200, "damaged")),
            exact=saved(200, "damaged"),
        ),
        job(exact=FOLDER / "iter_200.pth"),
    ),
    row("--ckpt weights only", Facts(survey=found(saved(300)), exact=WEIGHTS), job(exact=WEIGHTS.path)),
    row(
        "--ckpt a file that is no checkpoint",
        Facts(
            survey=found(saved(300)),
            exact=saved(
                -1, path=Path("logits.pth"), kind="unknown", run="", format_name="unknown", inside={}, listed=False
            ),
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
            weights=replace(WEIGHTS, kind="weights", format_name="", state="damaged", reason=EMPTY),
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
    *COPY_ROWS,
    # files of others, and lost records
    row("a checkpoint of a newer format", found(newer(300), saved(200))),
    row(
        "a newer format belongs to another run: not ours to refuse",
        found(newer(900, run=OTHER, listed=False), saved(200)),
    ),
    row(
        "a checkpoint of another run was copied in", found(saved(900, "unchecked", run=OTHER, listed=False), saved(200))
    ),
    row(
        "nothing saved yet, only a checkpoint of another run",
        found(saved(900, "unchecked", run=OTHER, listed=False), saves_ever=0),
    ),
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
    row("unbroken/ lost entirely, checkpoints there", found(saved(300, listed=False), **BARE)),
    row(
        "unbroken/ lost entirely, checkpoints of two runs",
        found(
            saved(300, run=OTHER, listed=False),
            saved(200, "unchecked", listed=False),
            **BARE,
        ),
    ),
    row("manifests lost", found(saved(300, listed=False), saved(200, "unchecked", listed=False))),
    # moves that were cut off
    row("a --fresh was cut off while it moved the old history", found(saved(200), archiving=True)),
    row(
        "a restore was cut off",
        found(saved(300), restoring=Restoring(name="20261119_080000", aside="20261120_230000", moved_aside=True)),
    ),
)
