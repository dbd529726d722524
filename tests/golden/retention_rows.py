"""What can lie in a run's folder when it is pruned, and what is asked: the rows of the retention table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unbroken.checkpoint.retention import Kind, Policy, StoredFile
from unbroken.run import EPOCHS, ITERATIONS, Layout

CUT_OFF = "the file is cut off: the zip directory at its end is missing"
Maker = Literal["ours", "MMEngine", "OpenPCDet", "other run", "newer", "weights", "foreign weights", "predictions"]
KINDS: dict[Maker, Kind] = {
    "ours": "state",
    "MMEngine": "state",
    "OpenPCDet": "state",
    "other run": "other run",
    "newer": "newer",
    "weights": "weights",
    "foreign weights": "weights",
    "predictions": "yours",
}
PER_EPOCH = 10  # steps
LAST_TWO = Policy(keep_last=2)


@dataclass(frozen=True, kw_only=True)
class File:
    """One file: who made it, what it holds, what happened to it since."""

    name: str
    step: int
    maker: Maker = "ours"
    save: str = ""  # of which save it is a copy
    listed: bool = True
    damaged: bool = False
    flipped: bool = False  # damage that only reading every byte finds
    kind: Kind | None = None  # where the maker alone does not say what it is to the run

    @property
    def identity(self) -> str:
        """The save that it holds."""
        return self.save or f"{self.name}@{self.step}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: files, a policy, pins, the best evaluation's step."""

    title: str
    files: tuple[File, ...]
    policy: Policy = LAST_TWO
    pins: tuple[str, ...] = ()
    best_step: int | None = None
    layout: Layout = ITERATIONS
    recorded: bool = True  # whether there is unbroken/run.json

    def stored(self) -> list[StoredFile]:
        """The facts that a look at these files finds, once what stays was read."""
        return [self._stored(item) for item in sorted(self.files, key=lambda f: (-f.step, not f.listed, f.name))]

    def _stored(self, item: File) -> StoredFile:
        part, metric = self.layout.part_of(item.name)
        spoilt = item.damaged or item.flipped
        kind = "yours" if not part else "damaged" if spoilt else item.kind or KINDS[item.maker]
        score = item.step == self.best_step and kind in ("state", "passed")
        return StoredFile(
            name=item.name,
            step=item.step,
            verified=not spoilt,
            kind=kind,
            epoch=item.step // PER_EPOCH,
            save=item.identity,
            rolling=part == "rolling",
            metric=metric,
            best="mIoU 0.5" if score else "",
            trouble=CUT_OFF if item.damaged else "one bit" if item.flipped else "",
        )


def saves(*steps: int) -> tuple[File, ...]:
    return tuple(File(name=f"iter_{step}.pth", step=step) for step in steps)


def epochs(*numbers: int) -> tuple[File, ...]:
    return tuple(File(name=f"checkpoint_epoch_{n}.pth", step=n * PER_EPOCH) for n in numbers)


def by(maker: Maker, files: Sequence[File]) -> tuple[File, ...]:
    return tuple(replace(item, maker=maker, listed=False) for item in files)


def spoilt(files: Sequence[File], *steps: int, **how: bool) -> tuple[File, ...]:
    how = how or {"damaged": True}
    return tuple(replace(item, **how) if item.step in steps else item for item in files)


def copied(file: File, name: str, **facts: object) -> File:
    """A copy of a file under another name, made by hand."""
    return replace(file, name=name, save=file.identity, listed=False, **facts)  # type: ignore[arg-type]


def best(step: int, metric: str = "mIoU", **facts: object) -> File:
    return File(name=f"best_{metric}_iter_{step}.pth", step=step, maker="weights", **facts)  # type: ignore[arg-type]


TEN = saves(*range(10, 101, 10))
LATEST = File(name="latest_model.pth", step=47)

ROWS = (
    Row(title="ten saves: the last two stay", files=TEN),
    Row(title="the last four", files=TEN, policy=Policy(keep_last=4)),
    Row(title="one is asked for: two stay", files=TEN, policy=Policy(keep_last=1)),
    Row(title="more are asked for than there are", files=saves(10, 20), policy=Policy(keep_last=5)),
    Row(title="two saves: nothing goes", files=saves(10, 20)),
    Row(title="one save: nothing goes", files=saves(10)),
    Row(title="no save, only best weights: nothing goes", files=(best(10), best(20))),
    Row(title="each 30th step", files=TEN, policy=Policy(keep_last=2, keep_every=30)),
    Row(title="each step", files=saves(10, 20, 30), policy=Policy(keep_last=2, keep_every=1)),
    Row(title="the best is old", files=TEN, best_step=30),
    Row(title="the best is old and not wanted", files=TEN, best_step=30, policy=Policy(keep_last=2, keep_best=False)),
    Row(title="the best is among the last", files=TEN, best_step=100),
    Row(title="the step of the best was not saved", files=TEN, best_step=35),
    Row(title="pinned ones stay", files=TEN, pins=("iter_10.pth", "iter_60.pth")),
    Row(title="a pin of a file that is not here", files=saves(10, 20, 30), pins=("iter_99.pth",)),
    Row(
        title="last, every, best and pinned together",
        files=TEN,
        policy=Policy(keep_last=3, keep_every=40),
        pins=("iter_20.pth",),
        best_step=50,
    ),
    # -- damage
    Row(title="the newest is cut off: it is no state", files=spoilt(saves(10, 20, 30, 40), 40)),
    Row(title="the newest is cut off, and may go", files=spoilt(TEN, 100), policy=Policy(keep_last=2, damaged=True)),
    Row(title="one bit of the newest was flipped", files=spoilt(saves(10, 20, 30, 40), 40, flipped=True)),
    Row(title="the two newest were flipped", files=spoilt(saves(10, 20, 30, 40), 30, 40, flipped=True)),
    Row(title="two are left whole, and both stay", files=spoilt(saves(10, 20, 30, 40), 20, 30)),
    Row(
        title="one is left whole: the damaged stay also where they may go",
        files=spoilt(saves(10, 20, 30), 20, 30),
        policy=Policy(keep_last=2, damaged=True),
    ),
    Row(title="all are damaged: nothing goes", files=spoilt(saves(10, 20), 10, 20)),
    Row(title="an old one is cut off, and is kept", files=spoilt(TEN, 10)),
    Row(title="an old one is cut off, and may go", files=spoilt(TEN, 10), policy=Policy(keep_last=2, damaged=True)),
    Row(title="a damaged one is pinned", files=spoilt(TEN, 10), pins=("iter_10.pth",)),
    Row(title="the manifests are gone: verified by content", files=tuple(replace(f, listed=False) for f in TEN)),
    # -- copies, and what is not ours to remove
    Row(
        title="the guide's copy of the newest beside it",
        files=(*saves(10, 20, 30), copied(saves(30)[0], "best_model_backup.pth")),
    ),
    Row(
        title="a copy of the newest is no second state",
        files=(*saves(10, 30), copied(saves(30)[0], "iter_25.pth", kind="yours")),
    ),
    Row(
        title="a copy of an older one under a name of this run",
        files=(*saves(10, 20, 30, 40), copied(saves(10)[0], "iter_5.pth", kind="yours")),
    ),
    Row(
        title="names that this run would not write",
        files=(*TEN, *(File(name=n, step=5, listed=False) for n in ("iter_007.pth", "mine.pth", "iter_5 (1).pth"))),
    ),
    Row(
        title="predictions under any name",
        files=(*TEN, File(name="iter_5.pth", step=5, maker="predictions", listed=False)),
    ),
    Row(
        title="of another run",
        files=(*saves(10, 20, 30), File(name="iter_90.pth", step=90, maker="other run", listed=False)),
    ),
    Row(
        title="written by a newer version",
        files=(*saves(10, 20, 30), File(name="iter_90.pth", step=90, maker="newer", listed=False)),
    ),
    # -- best weights
    Row(title="best weights beside the last two", files=(*TEN, best(40))),
    Row(title="older best weights of the same metric", files=(*TEN, best(20), best(40), best(60))),
    Row(title="two metrics, each with its best", files=(*TEN, best(20), best(40), best(30, "mAcc"))),
    Row(title="older best weights are pinned", files=(*TEN, best(20), best(40)), pins=("best_mIoU_iter_20.pth",)),
    Row(title="the newest best weights are damaged", files=(*TEN, best(20), best(40, damaged=True))),
    Row(title="older best weights, but one state only", files=(*saves(50), best(20), best(40))),
    # -- the layout by epochs
    Row(title="by epochs", files=epochs(1, 2, 3, 4, 5), layout=EPOCHS),
    Row(title="by epochs: the file within an epoch", files=(*epochs(1, 2, 3, 4), LATEST), layout=EPOCHS),
    Row(
        title="by epochs: that file is the furthest, and counts as a state",
        files=(*epochs(1, 2, 3, 4), LATEST),
        layout=EPOCHS,
        policy=Policy(keep_last=1),
    ),
    Row(
        title="by epochs: that file is a copy of the last epoch, and no second state",
        files=(*epochs(2, 4), copied(epochs(4)[0], "latest_model.pth")),
        layout=EPOCHS,
        policy=Policy(keep_last=1),
    ),
    Row(title="by epochs: that file is old", files=(*epochs(3, 4, 5), replace(LATEST, step=7)), layout=EPOCHS),
    Row(
        title="by epochs: each second epoch",
        files=epochs(*range(1, 9)),
        layout=EPOCHS,
        policy=Policy(keep_last=1, keep_every=2, by_epoch=True),
    ),
    Row(
        title="by epochs: the guide's copy of an old epoch",
        files=(*epochs(1, 2, 3, 4), copied(epochs(1)[0], "best_model_backup.pth")),
        layout=EPOCHS,
    ),
    # -- other programs
    Row(title="left by MMEngine", files=by("MMEngine", TEN), recorded=False),
    Row(
        title="left by MMEngine, with its best",
        files=(*by("MMEngine", TEN), *by("MMEngine", [replace(best(40), kind="weights")])),
        recorded=False,
        best_step=40,
    ),
    Row(title="left by OpenPCDet", files=by("OpenPCDet", epochs(1, 2, 3, 4)), recorded=False, layout=EPOCHS),
    Row(
        title="left by OpenPCDet, the last cut off",
        files=(*by("OpenPCDet", epochs(1, 2, 3)), *spoilt(by("OpenPCDet", [replace(epochs(4)[0], step=4)]), 4)),
        recorded=False,
        layout=EPOCHS,
    ),
    Row(
        title="taken over from OpenPCDet: its own saves have been passed",
        files=(*(replace(f, kind="passed") for f in by("OpenPCDet", epochs(1, 2, 3))), *epochs(4, 5, 6)),
        layout=EPOCHS,
    ),
    Row(
        title="taken over from OpenPCDet, one save since",
        files=(*(replace(f, kind="passed") for f in by("OpenPCDet", epochs(1, 2))), *epochs(3)),
        layout=EPOCHS,
    ),
)
