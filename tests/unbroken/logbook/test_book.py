"""`experiments_log.txt` as text: what is ours changes, what a person wrote stays."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from unbroken.errors import UnbrokenError
from unbroken.logbook.file import decoded
from unbroken.logbook.render import ResultFacts, clean, config_words, ours, result_words
from unbroken.logbook.table import RESULT, TAG, Book, Entry, cells_of, merged, width_of
from unbroken.run.summary import Score, Summary

SEED = 20260205
GUIDE = """\
日期       | 标签                    | 配置说明                          | 结果
-----------|------------------------|----------------------------------|------
2026-02-05 | baseline_bs2           | batch_size=2, workers=4, 基线    | mAP: 0.xx
2026-02-05 | grad_accum_x4          | 梯度累积x4, LR=0.0005           | mAP: 0.xx
2026-02-06 | small_model_d96        | d_model=96, nhead=6, 轻量化     | mAP: 0.xx
2026-02-06 | voxel_0.15             | VOXEL_SIZE=[0.15,0.25,0.25]     | mAP: 0.xx
"""


def entry(label: str = "grad_accum_x4", result: str = "mAP: 0.83 (第 60 轮)", **facts: object) -> Entry:
    known = Entry(label=label, names=(label,), date="2026-02-05", config="梯度累积x4", result=result)
    return replace(known, **facts)  # type: ignore[arg-type]


def updated(text: str, *entries: Entry, language: str = "zh") -> str:
    book = Book(text)
    book.update(entries, language)
    return book.text


def summary(**facts: object) -> Summary:
    known = Summary(
        directory=Path("output/baseline"),
        label="baseline",
        id="1",
        tag="baseline",
        recipe="focalsst",
        status="finished",
        step=400,
        total=400,
        best=Score(metric="mAP", value=0.83125, step=300),
        last={},
        last_step=None,
        began="2026-02-05T10:00:00+08:00",
        last_seen="",
        sessions=1,
        trained_s=1.0,
        size_bytes=1,
        parent=None,
    )
    return replace(known, **facts)  # type: ignore[arg-type]


# -- rows ------------------------------------------------------------------------------------------------------------


def test_the_guides_own_file_gets_its_results_and_keeps_its_words() -> None:
    text = updated(GUIDE, entry(), entry("new", "进行中", config="LR=0.001"))
    assert text == (
        "日期       | 标签                   | 配置说明                         | 结果\n"
        "-----------|------------------------|----------------------------------|----------------------\n"
        "2026-02-05 | baseline_bs2           | batch_size=2, workers=4, 基线    | mAP: 0.xx\n"
        "2026-02-05 | grad_accum_x4          | 梯度累积x4, LR=0.0005            | mAP: 0.83 (第 60 轮)\n"
        "2026-02-06 | small_model_d96        | d_model=96, nhead=6, 轻量化      | mAP: 0.xx\n"
        "2026-02-06 | voxel_0.15             | VOXEL_SIZE=[0.15,0.25,0.25]      | mAP: 0.xx\n"
        "2026-02-05 | new                    | LR=0.001                         | 进行中\n"
    )
    assert len({width_of(line.rpartition("|")[0]) for line in text.splitlines()}) == 1, "the bars stand in columns"


def test_a_new_file_has_the_guides_columns() -> None:
    assert updated("", entry(config="基线")).splitlines()[0] == GUIDE.splitlines()[0].replace(
        "标签  ", "标签 "
    ).replace("配置说明  ", "配置说明 ")
    assert updated("", entry(), language="en").splitlines() == [
        "Date       | Tag                    | What differs                     | Result",
        "-----------|------------------------|----------------------------------|----------------------",
        "2026-02-05 | grad_accum_x4          | 梯度累积x4                       | mAP: 0.83 (第 60 轮)",
    ]


def test_what_is_up_to_date_is_not_touched_at_all() -> None:
    odd = "tag |result\n---|---\nx|  mAP: 1 (step 3)   \n a note | with a bar\n"
    assert updated(odd, entry("x", "mAP: 1 (step 3)", config="", date="")) == odd


def test_notes_before_between_and_after_the_rows_stay_word_for_word() -> None:
    lines = GUIDE.splitlines()
    text = "\n".join(
        ["# 我的实验", "", *lines[:3], "  以上：张三 | 2026", "", *lines[3:], "", "TODO: 画图", "----", "结论"]
    )
    after = updated(text, entry(), entry("new")).split("\n")
    for note in ("# 我的实验", "  以上：张三 | 2026", "TODO: 画图", "----", "结论"):
        assert note in after
    assert after.index("TODO: 画图") == after.index(next(line for line in after if "| new " in line)) + 2


@pytest.mark.parametrize(
    ("cell", "written", "expected"),
    [
        ("", [], "NEW"),
        ("mAP: 0.xx", [], "NEW"),
        ("mAP: 0.xx（待复现）", [], "NEW（待复现）"),
        ("?", [], "NEW"),
        ("待定", [], "NEW"),
        ("0.xxx", [], "NEW"),
        ("OLD", ["OLD"], "NEW"),
        ("OLD, 张三的最好结果", ["OLD"], "NEW, 张三的最好结果"),
        ("best: OLD!", ["OLDER", "OLD"], "best: NEW!"),
        ("mAP: 0.812", ["mAP: 0.8"], "NEW; mAP: 0.812"),  # a person's number, not ours with a tail
        ("mAP 0.81 by hand", [], "NEW; mAP 0.81 by hand"),
        ("NEW; mAP 0.81 by hand", ["NEW"], "NEW; mAP 0.81 by hand"),
        ("I took it out", ["NEW"], "I took it out"),  # it was said before, and a person has removed it
        ("-0.5 by hand", [], "NEW; -0.5 by hand"),
        ("xxl model fails", [], "NEW; xxl model fails"),
        ("NEW, running since 9:00", ["NEW, running since 9:00"], "NEW"),
        ("NEW, running since 9:00, 待复现", ["NEW, running since 9:00", "NEW"], "NEW, 待复现"),
        ("NEW, stopped; as OLD", ["OLD", "NEW, stopped"], "NEW; as OLD"),
        ("stopped at NEW", ["stopped at NEW"], "NEW"),
    ],
)
def test_a_result_of_ours_is_replaced_and_a_persons_words_stay(cell: str, written: list[str], expected: str) -> None:
    assert merged(cell, "NEW", written, before="; ") == expected
    once = merged(expected, "NEW", [*written, "NEW"], before="; ")
    assert once == expected, "the second time changes nothing"


def test_other_cells_of_a_person_are_left_alone() -> None:
    assert merged("my words", "NEW", []) == "my words"
    assert merged("OLD", "NEW", ["OLD"]) == "NEW"
    assert merged("OLD and my words", "NEW", ["OLD"]) == "NEW and my words"
    assert merged("LR=0.1, d_model=96", "LR=0.1", ["LR=0.1, d_model=96"]) == "LR=0.1"
    assert merged("LR=0.1, steps=4, d=96", "steps=4", ["LR=0.1, steps=4, d=96"]) == "steps=4"


def test_what_a_person_wrote_is_never_taken_for_ours_because_we_would_say_the_same() -> None:
    book = Book(GUIDE)
    (change,) = book.update([entry(config="梯度累积x4, LR=0.0005")], "zh")
    assert set(change.cells) == {TAG, RESULT}
    after = updated(book.text, entry(config="LR=0.001", written={name: [text] for name, text in change.cells.items()}))
    assert "| 梯度累积x4, LR=0.0005 " in after and "LR=0.001" not in after


def test_who_has_written_into_a_row_comes_before_who_bears_its_name() -> None:
    text = updated("", entry("x", "mAP: 0.5 (第 9 轮)"))
    renamed = entry("y", "mAP: 0.5 (第 9 轮)", names=("x", "y"), written={TAG: ["x"], RESULT: ["mAP: 0.5 (第 9 轮)"]})
    for entries in ([renamed, entry("x", "中断于 3/9 步")], [entry("x", "中断于 3/9 步"), renamed]):
        found = {row[1]: row[3] for row in Book(updated(text, *entries)).rows}
        assert found == {"y": "mAP: 0.5 (第 9 轮)", "x": "中断于 3/9 步"}


def test_columns_in_another_order_and_extra_columns_are_kept() -> None:
    text = "| 结果 | 备注 | 标签 | 日期 |\n|---|---|---|---|\n| mAP: 0.xx | 用GPU2 | grad_accum_x4 | 2026-02-05 |\n"
    assert updated(text, entry(), entry("new")) == (
        "| 结果                 | 备注   | 标签          | 日期       |\n"
        "|----------------------|--------|---------------|------------|\n"
        "| mAP: 0.83 (第 60 轮) | 用GPU2 | grad_accum_x4 | 2026-02-05 |\n"
        "| mAP: 0.83 (第 60 轮) |        | new           | 2026-02-05 |\n"
    )


def test_a_row_may_have_more_cells_or_fewer_than_the_header() -> None:
    rows = ["2026-02-05 | grad_accum_x4 | a | mAP: 0.xx | seen | twice", "2026-02-05 | short"]
    text = "\n".join([*GUIDE.splitlines()[:2], *rows])
    after = Book(updated(text, entry(), entry("short"))).rows
    assert after[0] == ["2026-02-05", "grad_accum_x4", "a", "mAP: 0.83 (第 60 轮)", "seen", "twice"]
    assert after[1] == ["2026-02-05", "short", "梯度累积x4", "mAP: 0.83 (第 60 轮)"]


def test_of_two_rows_with_a_tag_the_one_of_the_day_counts() -> None:
    rows = [f"2026-02-0{day} | x | hand | mAP: 0.xx" for day in (4, 5, 6)]
    after = Book(updated("\n".join([*GUIDE.splitlines()[:2], *rows]), entry("x"))).rows
    assert [row[3] for row in after] == ["mAP: 0.xx", "mAP: 0.83 (第 60 轮)", "mAP: 0.xx"]


def test_the_row_of_a_history_in_the_archive_stays_history() -> None:
    old = updated("", entry("x", "mAP: 0.50 (第 9 轮)"))
    after = Book(updated(old, entry("x", "mAP: 0.60 (第 3 轮)", others=("mAP: 0.50 (第 9 轮)",)))).rows
    assert [row[3] for row in after] == ["mAP: 0.50 (第 9 轮)", "mAP: 0.60 (第 3 轮)"]


def test_a_file_of_notes_alone_gets_a_table_behind_them() -> None:
    text = updated("今天开始\n没有表格", entry())
    assert text.startswith("今天开始\n没有表格\n\n日期 ") and text.endswith("(第 60 轮)\n")


def test_line_ends_of_windows_and_a_last_line_without_one_are_kept() -> None:
    text = updated(GUIDE.rstrip().replace("\n", "\r\n"), entry("new"))
    assert text.count("\r\n") == len(text.splitlines()) == 7 and "\n\n" not in text.replace("\r", "")


def test_the_header_can_be_put_into_the_other_language_and_foreign_words_stay() -> None:
    book = Book(GUIDE.replace("结果", "结果").replace("标签", "实验名"))
    book.speak("en")
    book.update([], "en")
    assert cells_of(book.text.splitlines()[0]) == ["Date", "实验名", "What differs", "Result"]
    assert book.language == "zh" and Book("Date | Tag | Result").language == "en" and Book("x").language == ""


def test_results_of_ours_are_known_again_although_they_were_never_remembered() -> None:
    for language in ("zh", "en"):
        for status in ("running", "stopped", "killed", "finished", "lost"):
            for best in (None, Score(metric="mAP", value=0.5, step=3)):
                said = result_words(
                    summary(status=status, best=best), ResultFacts(since="2026-02-05T10:00:00", epoch=2), language
                )
                assert (found := ours(language).search(f"my {said}; words")) is not None and found[0] == said
    text = updated("", entry("x", "mAP: 0.5 (第 2 轮)，停于 3/9 步"))
    after = updated(text, entry("x", "mAP: 0.6 (第 9 轮)", written={TAG: ["x"]}, ours=ours("zh")))
    assert Book(after).rows[0][3] == "mAP: 0.6 (第 9 轮)"


def test_no_edit_of_a_person_is_lost_in_a_thousand_updates() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for _ in range(60):
        text, written, notes = GUIDE, dict[str, list[str]](), list[str]()
        for turn in range(20):
            label = chance.choice(["grad_accum_x4", "voxel_0.15", "new_a", "new_b"])
            now = f"mAP: 0.{turn:02d} (第 {turn} 轮)"
            text = updated(text, entry(label, now, written={RESULT: written.get(label, [])}))
            written.setdefault(label, []).append(now)
            note, lines = f"注{len(notes)}", text.splitlines()
            notes.append(note)
            place = chance.randrange(2, len(lines))
            if "|" in lines[place] and chance.random() < 0.6:
                lines[place] = f"{lines[place]} {note}" if chance.random() < 0.7 else f"{lines[place]} | {note}"
            else:
                lines.insert(place, note)
            text = "\n".join(lines) + "\n"
            assert all(each in text for each in notes), text
        assert len([row for row in Book(text).rows if row[1] == "grad_accum_x4"]) == 1
        for label, texts in written.items():
            (row,) = [row for row in Book(text).rows if row[1] == label]
            assert texts[-1] in row[3], "the newest result is said"
            assert sum(old in row[3] for old in texts) == 1, "and no older one"


# -- words -----------------------------------------------------------------------------------------------------------

FOCAL = {
    "OPTIMIZATION": {"BATCH_SIZE_PER_GPU": 2, "GRAD_ACCUMULATION_STEPS": 1, "LR": 0.003, "NUM_EPOCHS": 80},
    "MODEL": {"BACKBONE_3D": {"DSVT": {"d_model": 192, "nhead": 8}}},
    "DATA_CONFIG": {"DATA_PROCESSOR": [{"NAME": "voxels", "VOXEL_SIZE": [0.1, 0.25, 0.25]}]},
}


def changed(**values: object) -> dict[str, object]:
    def put(tree: object) -> object:
        if isinstance(tree, dict):
            return {key: values.get(key, put(value)) for key, value in tree.items()}
        return [put(item) for item in tree] if isinstance(tree, list) else tree

    found = put(FOCAL)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("config", "zh", "en"),
    [
        (
            {"GRAD_ACCUMULATION_STEPS": 4, "LR": 0.0005},
            "梯度累积x4, LR=0.0005",
            "accumulation x4, LR=0.0005",
        ),
        ({"d_model": 96, "nhead": 6}, "d_model=96, nhead=6, 轻量化", "d_model=96, nhead=6, smaller model"),
        ({"d_model": 384}, "d_model=384, 加大模型", "d_model=384, larger model"),
        ({"VOXEL_SIZE": [0.15, 0.25, 0.25]}, "VOXEL_SIZE=[0.15,0.25,0.25]", "VOXEL_SIZE=[0.15,0.25,0.25]"),
        ({}, "同基线", "as the baseline"),
        ({"LR": None, "nhead": True}, "LR=无, nhead=开", "LR=none, nhead=on"),
    ],
)
def test_settings_are_said_in_the_guides_words(config: dict[str, object], zh: str, en: str) -> None:
    assert config_words(changed(**config), FOCAL, "zh") == zh
    assert config_words(changed(**config), FOCAL, "en") == en


def test_a_baseline_says_its_main_settings() -> None:
    assert config_words(FOCAL, None, "zh", workers="4") == "batch_size=2, LR=0.003, epochs=80, workers=4, 基线"
    assert config_words({"anything": {"else": 1}}, None, "en") == "baseline"


def test_where_two_keys_end_alike_more_of_them_is_said_and_a_long_list_is_cut() -> None:
    old = {"train": {"batch_size": 2}, "val": {"batch_size": 1}, **{f"key{n}": 0 for n in range(9)}}
    new = {"train": {"batch_size": 4}, "val": {"batch_size": 3}, **{f"key{n}": 1 for n in range(9)}}
    assert config_words(new, old, "en") == (
        "train.batch_size=4, val.batch_size=3, key0=1, key1=1, key2=1, key3=1, 5 more"
    )
    assert config_words({}, {"a": {"b": 1}}, "en") == "no b"
    assert config_words(FOCAL, FOCAL, "zh", parent="baseline") == "微调自 baseline, 同基线"


@pytest.mark.parametrize(
    ("facts", "zh", "en"),
    [
        ({}, "mAP: 0.8313 (第 60 轮)", "mAP: 0.8313 (epoch 60)"),
        (
            {"status": "running", "step": 120},
            "mAP: 0.8313 (第 60 轮)，自 2026-02-05 02:00:00 +0000 起进行中",
            "mAP: 0.8313 (epoch 60), running since 2026-02-05 02:00:00 +0000",
        ),
        ({"status": "stopped", "step": 120, "best": None}, "停于 120/400 步", "stopped at 120/400 steps"),
        ({"status": "killed", "step": 120, "best": None}, "中断于 120/400 步", "killed at 120/400 steps"),
        ({"status": "finished", "best": None}, "已完成 400 步", "finished 400 steps"),
        ({"status": "left by MMEngine"}, "mAP: 0.8313 (第 60 轮)", "mAP: 0.8313 (epoch 60)"),
    ],
)
def test_a_result_says_the_best_and_how_it_stands(facts: dict[str, object], zh: str, en: str) -> None:
    known = ResultFacts(since="2026-02-05T10:00:00+08:00", epoch=60)
    assert (result_words(summary(**facts), known, "zh"), result_words(summary(**facts), known, "en")) == (zh, en)


def test_without_a_best_the_newest_evaluation_counts() -> None:
    seen = summary(best=None, last={"mIoU": 41.37}, last_step=200)
    assert result_words(seen, ResultFacts(), "en") == "mIoU: 41.37 (step 200)"


# -- what strangers write ----------------------------------------------------------------------------------------------

HOSTILE = [
    "a|b",
    "a\nb\r\nc",
    "\x1b[31mred\x07",
    "<script>",
    "../../etc",
    "x" * 100_000,
    "\u202eabc",
    "nan",
    "\\",
    "\\|",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value[:12]))
def test_any_name_or_value_stays_inside_its_cell(value: str) -> None:
    label = clean(value)
    assert len(label) < 500 and not re.search(r"[\x00-\x1f\x7f\u202e]", label)
    config = config_words({"a": value, value: 1}, {"a": 0}, "zh")
    best = Score(metric=value, value=float("nan"), step=3)
    result = result_words(summary(best=best), ResultFacts(), "zh")
    said = Entry(label=label, names=(label,), date="2026-02-05", config=config, result=result)
    text = updated(GUIDE, said)
    assert Book(text).rows[-1] == ["2026-02-05", label, config, result] and "nan" in result
    assert updated(text, said) == text, "it is known again"


@pytest.mark.parametrize("line", ["-" * 100_000 + "x", "|" * 100_000, " " * 100_000 + "?", "x." * 50_000], ids=len)
def test_a_line_without_end_takes_no_time(line: str) -> None:
    text = updated(f"{GUIDE}{line}\n", entry())
    assert line in text
    assert merged(line, "NEW", ["OLD"], before="; ").startswith("NEW")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_encodings_that_a_file_names_are_read(encoding: str) -> None:
    text, mark, found = decoded(Path("x"), GUIDE.encode(encoding))
    assert text == GUIDE and mark + text.encode(found) == GUIDE.encode(encoding)


def test_an_encoding_that_a_file_does_not_name_is_refused_with_a_way_out() -> None:
    with pytest.raises(UnbrokenError, match=r"byte 0x\w\w at 0.*iconv -f gbk"):
        decoded(Path("experiments_log.txt"), GUIDE.encode("gbk"))
