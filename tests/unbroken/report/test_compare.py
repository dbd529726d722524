"""What a comparison says: who leads and by which metric, what differs, and what must not be overlooked."""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import Any

import pytest

from unbroken.config import ABSENT, differences
from unbroken.errors import UsageError
from unbroken.report.compare import RunComparison, compare
from unbroken.report.curves import Column
from unbroken.report.markdown import as_markdown
from unbroken.report.messages import headline, rows
from unbroken.report.run_facts import RunFacts, pictures_of
from unbroken.report.segments import Rewind, RunCurves, Segment, SessionSpan
from unbroken.run.summary import Score, Summary

Values = dict[int, float]


def summary(label: str, **facts: Any) -> Summary:
    usual: dict[str, Any] = {
        "directory": Path("runs") / label,
        "label": label,
        "id": label,
        "tag": label,
        "recipe": "r",
        "status": "finished",
        "step": 100,
        "total": 100,
        "best": None,
        "last": {},
        "last_step": None,
        "began": "2026-01-01T00:00:00+00:00",
        "last_seen": "2026-01-01T01:00:00+00:00",
        "sessions": 1,
        "trained_s": 3600.0,
        "size_bytes": 1,
        "parent": None,
    }
    return Summary(**{**usual, **facts})


def curve(values: Values, *, kept: bool = True) -> Segment:
    return Segment(session="s", kept=kept, points=Column(array("q", values), array("d", values.values())))


def run(label: str, metric: str = "mIoU", scores: Values | None = None, **facts: Any) -> RunFacts:
    """A run that was evaluated so; it records its largest value as its best, unless told otherwise."""
    evaluations = {metric: (curve(scores),)} if scores else {}
    about = {key: facts.pop(key) for key in list(facts) if key in Summary.__dataclass_fields__ and key != "best"}
    if "best" not in facts and scores:
        step = max(scores, key=lambda step: scores[step])
        facts["best"] = Score(metric=metric, value=scores[step], step=step)
    curves = facts.pop("curves", RunCurves(evaluations=evaluations))
    usual: dict[str, Any] = {"config": {"lr": 1}, "seed": 0}
    return RunFacts(summary=summary(label, **about), curves=curves, **{**usual, **facts})


def notes(found: RunComparison) -> list[str]:
    return [note.kind for note in found.notes]


A = run("a", scores={50: 30.0, 100: 40.0})
B = run("b", scores={50: 35.0, 100: 33.0})


def test_the_leader_is_named_with_its_margin() -> None:
    found = compare([A, B])
    assert (found.metric, found.larger, found.leader, found.second, found.margin) == ("mIoU", True, 0, 1, 5.0)
    assert headline(found, "en") == "a is best: mIoU 40 at step 100, 5 above b"
    assert headline(found, "zh") == "a 最佳：mIoU 40（第 100 步），比 b 高 5"


def test_each_run_is_told_at_its_best_at_its_last_and_at_the_last_step_they_share() -> None:
    long = run("long", scores={50: 20.0, 100: 35.0, 150: 50.0}, total=150, step=150)
    found = compare([A, long])
    assert found.common_step == 100
    assert [standing.at_common for standing in found.runs] == [{"mIoU": 40.0}, {"mIoU": 35.0}]
    assert [standing.last_step for standing in found.runs] == [100, 150]
    assert notes(found) == ["totals", "ends"]
    table = {row.label: row.cells for row in rows(found, "en")}
    assert table["best mIoU"] == ("40 @ 100", "50 @ 150")
    assert table["mIoU at step 100"] == ("40", "35")


def test_a_smaller_loss_is_better() -> None:
    first = run("a", "val_loss", {1: 3.0, 2: 1.0}, best=Score(metric="val_loss", value=1.0, step=2))
    second = run("b", "val_loss", {1: 2.0, 2: 2.5}, best=Score(metric="val_loss", value=2.0, step=1))
    found = compare([first, second])
    assert (found.larger, found.leader, found.margin) == (False, 0, 1.0)
    assert "1 below b" in headline(found, "en")


def test_which_way_is_better_is_learned_from_what_the_runs_recorded() -> None:
    first = run("a", "distance", {1: 3.0, 2: 1.0}, best=Score(metric="distance", value=1.0, step=2))
    assert not compare([first, run("b", "distance", {1: 2.0}, best=None)]).larger


def test_level_runs_have_no_leader() -> None:
    found = compare([A, run("b", scores={100: 40.0})])
    assert (found.leader, found.margin) == (None, 0.0)
    assert headline(found, "en") == "The best are level: mIoU 40"


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize("others", [[], [10.0], [40.0]])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_where_the_best_are_level_nobody_leads_whoever_is_named_first(
    first: int, others: list[float], *, larger: bool
) -> None:
    sign, metric = (1, "mIoU") if larger else (-1, "val_loss")
    level = [run(name, metric, {1: sign * 40.0}) for name in ("a", "b")]
    rest = [run(f"c{place}", metric, {1: sign * value}) for place, value in enumerate(others)]
    facts = [*level, *rest]
    found = compare([*facts[first:], *facts[:first]], metric=metric)
    assert (found.larger, found.leader, found.second, found.margin) == (larger, None, None, 0.0)
    assert headline(found, "en") == f"The best are level: {metric} {sign * 40}"
    assert all(row.leader is None for row in rows(found, "en"))


def test_being_level_behind_the_best_takes_nothing_from_it() -> None:
    found = compare([run("b", scores={1: 30.0}), run("a", scores={1: 40.0}), run("c", scores={1: 30.0})])
    assert (found.leader, found.second, found.margin) == (1, 0, 10.0)


def test_a_difference_in_the_last_bit_is_no_tie() -> None:
    more = math.nextafter(40.0, 41.0)
    assert compare([run("a", scores={1: 40.0}), run("b", scores={1: more})]).leader == 1


@pytest.mark.parametrize("order", [(50, 100, 150), (150, 100, 50), (100, 150, 50)])
@pytest.mark.parametrize("metric, top", [("mIoU", 40.0), ("val_loss", 0.5)])
def test_of_level_evaluations_of_a_run_that_recorded_no_best_the_earliest_counts(
    order: tuple[int, ...], metric: str, top: float
) -> None:
    scores = dict.fromkeys(order, top) | {10: 1.0}
    found = compare([run("a", metric, scores, best=None), run("b", metric, {50: 1.0}, best=None)], metric=metric)
    assert found.runs[0].best == Score(metric=metric, value=top, step=50)


def test_a_best_that_was_recorded_by_another_metric_or_is_no_number_does_not_count() -> None:
    curves = RunCurves(evaluations={"mIoU": (curve({1: 90.0}),), "aAcc": (curve({1: 20.0, 2: 30.0}),)})
    other = run("a", curves=curves, best=Score(metric="mIoU", value=90.0, step=1))
    broken = run("b", curves=curves, best=Score(metric="aAcc", value=math.nan, step=1))
    found = compare([other, broken], metric="aAcc")
    assert {standing.best for standing in found.runs} == {Score(metric="aAcc", value=30.0, step=2)}


def test_a_metric_that_is_named_like_a_loss_is_larger_if_the_runs_recorded_their_largest() -> None:
    first = run("a", "lossless_share", {1: 1.0, 2: 3.0}, best=Score(metric="lossless_share", value=3.0, step=2))
    found = compare([first, run("b", "lossless_share", {1: 2.0}, best=None)])
    assert (found.larger, found.leader) == (True, 0)


def test_the_loss_at_the_end_is_the_mean_of_the_last_fifty_steps_that_count() -> None:
    kept = [curve(dict.fromkeys(range(1, 31), 100.0)), curve(dict.fromkeys(range(31, 101), 2.0))]
    lost = curve(dict.fromkeys(range(101, 140), 7.0), kept=False)
    after = curve({101: 52.0})
    told = run("a", curves=RunCurves(values={"loss": (*kept, lost, after)}))
    assert compare([told, B]).runs[0].loss == pytest.approx((49 * 2.0 + 52.0) / 50)


def test_a_copy_does_not_compete_with_what_it_is_a_copy_of() -> None:
    copy = run("a_backup", scores={50: 30.0, 100: 40.0}, id="a")
    found = compare([A, copy, B])
    assert (found.leader, found.second, found.margin) == (0, 2, 5.0)
    assert notes(found) == ["copy"]
    assert compare([A, copy]).leader is None


def test_the_metric_that_was_asked_for_decides() -> None:
    both = RunCurves(evaluations={"mIoU": (curve({1: 1.0}),), "aAcc": (curve({1: 9.0, 2: 7.0}),)})
    found = compare([run("a", curves=both), run("b", curves=both)], metric="aAcc")
    assert [standing.best for standing in found.runs] == [Score(metric="aAcc", value=9.0, step=1)] * 2


def test_a_metric_that_nobody_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"mIuO.*Found mIoU\. Did you mean mIoU\?"):
        compare([A, B], metric="mIuO")


def test_without_a_common_metric_the_runs_still_stand_side_by_side() -> None:
    found = compare([run("a"), run("b")])
    assert (found.metric, found.leader) == ("", None)
    assert headline(found, "en") == "2 runs side by side"
    assert notes(found) == ["no metric"]


def test_metrics_that_differ_and_that_nobody_recorded_are_said() -> None:
    other = run("b", "aAcc", {1: 1.0})
    assert notes(compare([A, other])) == ["bests", "not evaluated"]
    nobody = [run(label, scores={1: 1.0}, best=None) for label in "ab"]
    assert notes(compare(nobody)) == ["chosen"]


def test_what_is_not_finite_never_leads_and_is_said() -> None:
    scores = {1: math.nan, 2: math.inf, 3: 5.0}
    found = compare([run("a", scores=scores, best=None), run("b", scores={3: 4.0})])
    assert found.runs[0].best == Score(metric="mIoU", value=5.0, step=3)
    assert notes(found) == ["not finite"]
    assert found.notes[0].facts == {"run": "a", "count": "2", "step": "1", "name": "mIoU"}


def test_discarded_evaluations_do_not_count() -> None:
    curves = RunCurves(evaluations={"mIoU": (curve({1: 5.0}), curve({2: 99.0}, kept=False))})
    assert compare([run("a", curves=curves), B]).runs[0].best == Score(metric="mIoU", value=5.0, step=1)


@pytest.mark.parametrize(
    "kind, facts",
    [
        ("running", {"status": "running", "step": 7}),
        ("unfinished", {"status": "killed", "step": 7}),
        ("totals", {"total": 50}),
        ("seeds", {"seed": 7}),
        ("data", {"fingerprint": "abc", "dataset_size": 5}),
        ("conditions", {"conditions": {"device": "cuda"}}),
        ("parent", {"parent": {"run": "a", "tag": "a", "step": 9}}),
        ("no config", {"config": {}}),
        ("unreadable", {"curves": RunCurves(evaluations=B.curves.evaluations, unreadable=3)}),
    ],
)
def test_a_note_is_made_of_what_must_not_be_overlooked(kind: str, facts: dict[str, Any]) -> None:
    base = run("a", scores={100: 40.0}, fingerprint="xyz", dataset_size=4, conditions={"device": "cpu"})
    other = run(
        "b", scores={100: 33.0}, **{"fingerprint": "xyz", "dataset_size": 4, "conditions": {"device": "cpu"}, **facts}
    )
    found = compare([base, other])
    assert kind in notes(found)
    for note in found.notes:
        assert note.words("en").endswith(".")
        assert note.words("zh").endswith("。")


def test_like_runs_have_no_notes() -> None:
    assert notes(compare([A, B])) == []


def test_settings_that_changed_on_the_way_are_said() -> None:
    span = SessionSpan(name="s", base=4, last=9, kept_to=9, ended="finished", changes=("lr: 1 -> 2 (schedule)",))
    curves = RunCurves(evaluations=B.curves.evaluations, sessions=(span,))
    assert "changed" in notes(compare([A, run("b", curves=curves)]))


def test_rewinds_and_what_was_done_again_are_counted() -> None:
    rewinds = tuple(Rewind(session="s", reached=9, back_to=back, lost_by="r") for back in (4, 6))
    found = compare([A, run("b", curves=RunCurves(rewinds=rewinds))])
    assert (found.runs[1].rewinds, found.runs[1].discarded) == (2, 8)


def test_runs_of_one_name_are_told_apart_by_their_folders() -> None:
    runs = [run("x", directory=Path(f"/runs/{group}/x"), id=group) for group in ("one", "two", "two/x")]
    assert [standing.label for standing in compare(runs).runs] == ["one/x", "two/x", "x/x"]


def test_a_name_of_100000_characters_is_shortened_everywhere() -> None:
    found = compare([run("n" * 100_000, scores={1: 1.0}), run("m" * 100_000, scores={1: 2.0})])
    assert len(headline(found, "en")) < 300
    assert len(as_markdown(found, "en")) < 4000


# -- differences -----------------------------------------------------------------------------------------------------


def test_only_what_differs_is_listed_in_the_order_of_the_config() -> None:
    found = differences([{"z": 1, "a": {"x": 1, "y": (1, 2)}, "m": 3}, {"z": 2, "a": {"x": 1, "y": [1, 2]}, "m": 4}])
    assert [(d.key, d.values) for d in found] == [("z", (1, 2)), ("m", (3, 4))]


def test_what_a_config_does_not_have_is_said_to_be_absent() -> None:
    found = differences([{"a": {"x": 1}}, {}, {"a": {"x": 1, "y": None}}])
    assert [(d.key, d.values) for d in found] == [("a.x", (1, ABSENT, 1)), ("a.y", (ABSENT, ABSENT, None))]
    assert found[0].as_data() == {"key": "a.x", "values": [1, None, 1], "absent": [1]}


def test_lists_of_sections_of_the_same_kinds_are_compared_one_by_one() -> None:
    pipelines = [[{"type": "Crop", "size": size}, {"type": "Flip"}] for size in (1, 2)]
    assert [d.key for d in differences([{"p": pipeline} for pipeline in pipelines])] == ["p.0.size"]
    assert [d.key for d in differences([{"p": pipelines[0]}, {"p": pipelines[1][:1]}])] == ["p"]


def test_one_and_true_differ_one_and_one_point_zero_do_not() -> None:
    assert [d.key for d in differences([{"a": 1, "b": 1}, {"a": True, "b": 1.0}])] == ["a"]


def test_a_section_on_one_side_and_a_value_on_the_other_are_compared_whole() -> None:
    assert [(d.key, d.values) for d in differences([{"a": {"x": 1}}, {"a": 5}])] == [("a", ({"x": 1}, 5))]


def test_configs_of_endless_depth_are_still_compared() -> None:
    deep: list[dict[str, Any]] = [{"end": 1}, {"end": 2}]
    for _ in range(5000):
        deep = [{"a": tree} for tree in deep]
    assert len(differences(deep)) == 1


def test_pictures_are_only_those_inside_the_run(tmp_path: Path) -> None:
    place = tmp_path / "run" / "predictions" / "80"
    place.mkdir(parents=True)
    (place / "a.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    (place / "b.png").symlink_to(tmp_path / "secret.png")
    (place.parent / "90").symlink_to(place)
    assert pictures_of(tmp_path / "run") == {80: {"a": place / "a.png"}}
