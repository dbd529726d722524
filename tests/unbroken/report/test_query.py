"""`--where` and `--sort`: golden expressions, and each mistake with its way on."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from unbroken.errors import UsageError
from unbroken.report.index import IndexRow
from unbroken.report.query import conditions_of, matching, sorted_by, why_none

SEED = 20_261_122
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "a": {"optimizer": {"lr": 0.01, "type": "AdamW"}, "amp": True, "classes": ["road", "car"], "a.b": 1},
    "b": {"optimizer": {"lr": 1e-4, "type": "SGD"}, "amp": False, "seed": None},
    "c": {},
}


def row(label: str, **facts: Any) -> IndexRow:
    known: dict[str, Any] = {
        "folder": f"/runs/{label}", "signature": 1, "part": "", "label": label, "id": label, "tag": label,
        "recipe": "mapsage", "status": "finished", "step": 100, "total": None, "best_metric": None, "best_value": None,
        "best_step": None, "last": "", "last_step": None, "began": "", "last_seen": "", "sessions": 1,
        "trained_s": None, "size_bytes": 1000, "parent": "",
    }  # fmt: skip
    return IndexRow(**{**known, **facts})


ROWS = [
    row(
        "a", best_metric="mIoU", best_value=41.5, best_step=80, last=json.dumps({"mIoU": 40.0, "val/acc": 0.5}),
        total=100, last_seen="2026-11-22T16:30:00+08:00", size_bytes=2_000_000_000, trained_s=7200.0,
    ),
    row(
        "b", best_metric="mIoU", best_value=39.0, best_step=20, status="killed", step=20, sessions=3,
        last=json.dumps({"mIoU": math.nan}), last_seen="2026-11-21T23:00:00Z", recipe="Focalsst",
    ),
    row("c", best_metric="mIoU", status="stopped", step=7),
    row("d and e", status="left by MMEngine"),
]  # fmt: skip


def config_of(of: IndexRow) -> Any:
    return CONFIGS.get(of.label, {})


def chosen(*expressions: str) -> str:
    return "".join(row.label[0] for row in matching(ROWS, conditions_of(expressions), config_of))


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("best.mIoU>40", "a"),
        ("best.mIoU > 39", "a"),
        ("best.mIoU>=39", "ab"),
        ("best.mIoU<=39", "b"),
        ("best.mIoU<1e9", "ab"),
        ("best!=0", "ab"),
        ("best.mAP>0", ""),
        ("last.mIoU=40", "a"),
        ("last.mIoU!=40", ""),
        ("last.val/acc==0.5", "a"),
        ("status=finished", "a"),
        ("status!=finished", "bcd"),
        ("status~MMENGINE", "d"),
        ("tag~a", "ad"),
        ('tag="d and e"', "d"),
        ("tag='d and e' and step>=100", "d"),
        ("recipe~focal", "b"),
        ("folder~/runs/c", "c"),
        ("step>7 and step<100", "b"),
        ("step>7 AND sessions=3", "b"),
        ("total>0", "a"),
        ("size>1.5GB", "a"),
        ("size>=1kB and size<1 mb", "bcd"),
        ("trained>1h", "a"),
        ("trained<2h and trained>=1h59m59s", ""),
        ("trained=02:00:00", "a"),
        ("trained<=0-02", "a"),
        ("size=2GB", "a"),
        ("size>0", "abcd"),
        ("seen>2026-11-21", "a"),
        ("seen=2026-11-21", "b"),
        ('seen>="2026-11-22 08:30"', "a"),
        ("seen<2027", "ab"),
        ("config.optimizer.lr<0.001", "b"),
        ("config.optimizer.lr<=1e-2", "ab"),
        ("config.optimizer.type=AdamW", "a"),
        ("config.optimizer.type!=AdamW", "b"),
        ("config.optimizer~sgd", "b"),
        ("config.amp=true", "a"),
        ("config.amp=False", "b"),
        ("config.classes.1=car", "a"),
        ("config.classes.7=car", ""),
        ("config.classes~road", "a"),
        ("config.a.b=1", "a"),
        ("config.nothing.here=1", ""),
        ("step>-1e400", "abcd"),
        ("best.mIoU>inf", ""),
    ],
)
def test_an_expression_means_these_runs(expression: str, labels: str) -> None:
    assert chosen(expression) == labels


def test_several_expressions_must_all_hold() -> None:
    assert chosen("step>7", "step<100") == chosen("step>7 and step<100") == "b" and chosen() == "abcd"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("bset.mIoU>4", ["there is no such field", "best.METRIC", "Did you mean best.METRIC?"]),
        ("stpe>4", ["Did you mean step?", "found 'stpe'"]),
        ("best.>4", ["there is no such field"]),
        ("step>4 and statsu=x", ["character 12", "Did you mean status?"]),
        ("step", ["at character 1, this is no condition", "Examples: "]),
        ("step>", ["this is no condition"]),
        ("", ["this is no condition"]),
        ("step>4 and ", ["this is no condition"]),
        (">4", ["this is no condition"]),
        ("step>many", ["`step` is a number", "found 'many'"]),
        ("size>4 parsecs", ["this is no size", "a size like 20GB"]),
        ("size>1000", ["with its unit (1000B, 1000MB or 1000GB)"]),
        ("step>4 and trained<7200", ["character 12", "with its unit (7200s, 7200m or 7200h)"]),
        ("trained>inf", ["this is no time"]),
        ("best.mIoU~4", ["`~` looks for text"]),
        ("tag>b", ["`tag` is text"]),
        ("config.lr>high", ["`>` compares numbers"]),
        ("step>4" * 1000, ["too long"]),
        ("\x1b[2J>4", ["there is no such field"]),
    ],
)
def test_a_mistake_is_explained(expression: str, said: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        conditions_of([expression])
    assert all(text in str(error.value) for text in said), str(error.value)
    assert "\x1b" not in str(error.value)


def test_runs_are_sorted_by_any_field_and_those_without_it_come_last() -> None:
    def order(field: str) -> str:
        return "".join(row.label[0] for row in sorted_by(ROWS, field, config_of))

    assert order("best.mIoU") == "bacd" and order("-best.mIoU") == "abcd"
    assert order("step") == "cbad" and order("-step") == "adbc"
    assert order("-seen") == "abcd" and order("config.optimizer.lr") == "bacd"
    assert order("config.optimizer.type") == "abcd" and order("tag") == "abcd"
    with pytest.raises(UsageError, match="Did you mean best"):
        order("-bets")


def test_an_empty_answer_says_why() -> None:
    conditions = conditions_of(["best.miou>4", "step>1000", "config.optimiser.lr=1"])
    assert why_none(ROWS, conditions, config_of) == [
        "best.miou > 4: no run has it; there is best.mIoU",
        "step > 1000: 0 of the 4 that have it",
        "config.optimiser.lr = 1: no run has it; there is config.optimizer.lr, config.optimizer.type, config.seed",
    ]


def test_random_expressions_are_understood_or_explained() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    pieces = [
        "best",
        ".mIoU",
        "config.",
        "lr",
        ">",
        "<=",
        "=",
        "!=",
        "~",
        "!",
        " and ",
        '"',
        "'",
        "4",
        "nan",
        "-",
        "٣",
        "\0",
        " ",
    ]
    for _ in range(4000):
        expression = "".join(chance.choices(pieces, k=chance.randint(1, 7)))
        try:
            conditions = conditions_of([expression])
        except UsageError:
            continue
        matching(ROWS, conditions, config_of)
        why_none(ROWS, conditions, config_of)
