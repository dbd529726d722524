"""What a row of `experiments_log.txt` says of a run: its settings and its result in words, Chinese or English. Pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbroken.clock import shown_time
from unbroken.config import ABSENT
from unbroken.config.difference import differences, leaves
from unbroken.run.summary import Score, Summary
from unbroken.text import shown

LONGEST = 80  # characters of a tag, a name or a value
MOST = 6  # settings named in a row

# Settings that everybody names, by the end of their key in lower case; in the order in which they are said.
NAMES = {
    "batch_size_per_gpu": "batch_size",
    "batch_size": "batch_size",
    "grad_accumulation_steps": "accumulate",
    "accumulative_counts": "accumulate",
    "accumulation_steps": "accumulate",
    "accumulate": "accumulate",
    "lr": "LR",
    "learning_rate": "LR",
    "num_epochs": "epochs",
    "epochs": "epochs",
    "max_epochs": "epochs",
    "max_iters": "iters",
    "steps": "steps",
    "num_workers": "workers",
    "workers": "workers",
    "d_model": "d_model",
    "embed_dims": "embed_dims",
    "nhead": "nhead",
    "num_heads": "num_heads",
    "num_layers": "num_layers",
    "width": "width",
    "seed": "seed",
}
MAIN = ("batch_size", "accumulate", "LR", "epochs", "iters", "steps", "workers")  # what a baseline says of itself
SIZES = ("d_model", "embed_dims", "nhead", "num_heads", "num_layers", "width")  # fewer of each: a lighter model
EVALUATION = ("val_", "test_", "val.", "test.", "eval")  # sections whose batch size is not the training's

WORDS = {
    "zh": {
        "accumulate": "梯度累积x{}",
        "baseline": "基线",
        "same": "同基线",
        "lighter": "轻量化",
        "heavier": "加大模型",
        "more": "另有 {} 项",
        "none": "无",
        "on": "开",
        "off": "关",
        "without": "无 {}",
        "from": "微调自 {}",
        "step": "第 {} 步",
        "epoch": "第 {} 轮",
        "running": "自 {} 起进行中",
        "stopped": "停于 {} 步",
        "killed": "中断于 {} 步",
        "finished": "已完成 {} 步",
        "lost": "检查点已丢失",
        "not reachable": "检查点目录无法访问",
        "never started": "未开始",
        "comma": "，",
    },
    "en": {
        "accumulate": "accumulation x{}",
        "baseline": "baseline",
        "same": "as the baseline",
        "lighter": "smaller model",
        "heavier": "larger model",
        "more": "{} more",
        "none": "none",
        "on": "on",
        "off": "off",
        "without": "no {}",
        "from": "fine-tuned from {}",
        "step": "step {}",
        "epoch": "epoch {}",
        "running": "running since {}",
        "stopped": "stopped at {} steps",
        "killed": "killed at {} steps",
        "finished": "finished {} steps",
        "lost": "checkpoints lost",
        "not reachable": "checkpoint folder not reachable",
        "never started": "never started",
        "comma": ", ",
    },
}
STATES = ("running", "stopped", "killed", "finished", "lost", "not reachable", "never started")


@dataclass(frozen=True, kw_only=True)
class ResultFacts:
    """What a result is made of, besides the summary."""

    since: str = ""  # when the session that runs began, as an ISO time
    epoch: int | None = None  # of the step that was the best


def clean(text: object, longest: int = LONGEST) -> str:
    """Any text as a piece of one cell: bars and control characters escaped, a long one shortened in its middle."""
    known = unicodedata.normalize("NFC", str(text))
    return shown(known, longest, tail=longest // 3).strip().replace("|", "\\|")


def config_words(
    config: Mapping[str, Any],
    baseline: Mapping[str, Any] | None,
    language: str,
    *,
    parent: str = "",
    workers: str = "",
) -> str:
    """What differs from the baseline, most telling first; of the baseline itself (None) its main settings."""
    words = WORDS[language]
    said = [words["from"].format(clean(parent))] if parent else []
    if baseline is None:
        return _join([*said, *_main(config, workers, words)], [words["baseline"]], words)
    changed = [(item.key, *item.values) for item in differences([baseline, config])]
    if not changed:
        return _join([*said, words["same"]], [], words)
    ends = [_end(key) for key, _, _ in changed]
    order = list(NAMES)
    ranked = sorted(changed, key=lambda item: order.index(_end(item[0])) if _end(item[0]) in NAMES else len(order))
    named = [_setting(key, new, words, short=ends.count(_end(key)) == 1) for key, _, new in ranked]
    return _join([*said, *named], _weight(changed, words), words)


def result_words(summary: Summary, facts: ResultFacts, language: str) -> str:
    """The best metric and where it was reached; of a run that is not complete also how it stands."""
    words, status = WORDS[language], summary.status
    best = summary.best
    if best is None and summary.last and summary.last_step is not None:
        name = next(iter(summary.last))
        best = Score(metric=name, value=summary.last[name], step=summary.last_step)
    reached = f"{summary.step}/{summary.total}" if summary.total else str(summary.step)
    known = {"running": shown_time(facts.since), "finished": str(summary.step)}
    state = words[status].format(known.get(status, reached)) if status in STATES else ""
    if best is None:
        return state
    number, unit = (best.step, "step") if facts.epoch is None else (facts.epoch, "epoch")
    name = re.sub(r"\s", "_", clean(best.metric))
    score = f"{name}: {_number(best.value)} ({words[unit].format(number)})"
    return score if status == "finished" or not state else words["comma"].join([score, state])


def ours(language: str) -> re.Pattern[str]:
    """How a result of ours reads."""
    words = WORDS[language]
    states = "|".join(re.escape(words[name]).replace(r"\{\}", r"[\d:/ +-]+") for name in STATES)
    where = "|".join(re.escape(words[name]).replace(r"\{\}", r"\d+") for name in ("step", "epoch"))
    score = rf"[^\s|;；,，]{{1,{2 * LONGEST}}}: [-+.\w]{{1,24}} \((?:{where})\)"
    return re.compile(rf"{score}(?:{re.escape(words['comma'])}(?:{states}))?|(?:{states})")


def _main(config: Mapping[str, Any], workers: str, words: Mapping[str, str]) -> list[str]:
    found: dict[str, tuple[str, Any]] = {}
    for key, value in leaves(config):
        name = NAMES.get(_end(key), "")
        if name in MAIN and name not in found and not key.lower().startswith(EVALUATION):
            found[name] = key, value
    if workers:
        found["workers"] = "workers", workers
    quiet = {"accumulate": 1}
    told = [found[name] for name in MAIN if name in found and found[name][1] != quiet.get(name)]
    return [_setting(key, value, words, short=True) for key, value in told]


def _setting(key: str, value: Any, words: Mapping[str, str], *, short: bool) -> str:
    parts = [part for part in key.split(".") if not part.isdecimal()] or [key]
    known = NAMES.get(_end(key)) if short or len(parts) == 1 else None
    name = clean(known or ".".join(parts[-1:] if short else parts[-2:]), LONGEST // 2)
    if value is ABSENT:
        return words["without"].format(name)
    if known == "accumulate":
        return words["accumulate"].format(_text(value, words))
    return f"{name}={_text(value, words)}"


def _weight(changed: Sequence[tuple[str, Any, Any]], words: Mapping[str, str]) -> list[str]:
    """Whether the model as a whole became lighter or heavier, where its sizes agree on that."""
    sizes = [(old, new) for key, old, new in changed if _end(key) in SIZES]
    pairs = [pair for old, new in sizes for pair in zip(_numbers(old), _numbers(new))]
    if pairs and all(new <= old for old, new in pairs):
        return [words["lighter"]]
    return [words["heavier"]] if pairs and all(new >= old for old, new in pairs) else []


def _join(said: Sequence[str], last: Sequence[str], words: Mapping[str, str]) -> str:
    unique = list(dict.fromkeys(said))
    more = [words["more"].format(len(unique) - MOST)] if len(unique) > MOST else []
    return ", ".join([*unique[:MOST], *more, *last])


def _end(key: str) -> str:
    parts = [part for part in key.split(".") if not part.isdecimal()]
    return parts[-1].lower() if parts else key


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if isinstance(item, int | float) and not isinstance(item, bool)]


def _text(value: Any, words: Mapping[str, str]) -> str:
    if isinstance(value, bool):
        return words["on" if value else "off"]
    if value is None:
        return words["none"]
    if isinstance(value, list | tuple):
        return clean(f"[{','.join(_text(item, words) for item in value[:LONGEST])}]", LONGEST // 2)
    return clean(_number(value) if isinstance(value, float) else value, LONGEST // 2)


def _number(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return str(value)
    return f"{value:.4g}"
