"""The words of the page in English and Chinese, and text that stays text wherever it stands in the page."""

from __future__ import annotations

import html
import json
from typing import Any

from unbroken.text import shown

MOST = 300  # characters of one name or setting


def escaped(text: str, most: int = MOST) -> str:
    """The text for HTML, in an element or in a quoted attribute."""
    return html.escape(shown(text, most, tail=most // 4), quote=True)


def for_plot(text: str) -> str:
    """The text for a plot, whose library reads a few HTML elements and entities in names."""
    return html.escape(shown(text, 60, tail=15), quote=False)


def as_script(data: Any) -> str:
    """Data as JSON inside a `<script>` element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# -- words -------------------------------------------------------------------------------------------------------------


WORDS: dict[str, tuple[str, str]] = {
    "title": ("Comparison", "训练对比"),
    "runs": ("{count} runs compared", "{count} 次训练对比"),
    "theme": ("Light or dark", "浅色 / 深色"),
    "notes": ("Note", "请注意"),
    "hide": ("A click on a run hides or shows it in all plots.", "点击某次训练，可在所有图中隐藏或显示它。"),
    "last": ("last", "最后"),
    "loss": ("loss at the end", "末段损失"),
    "steps": ("steps", "步数"),
    "time": ("time", "用时"),
    "samples": ("samples", "样本"),
    "sessions": ("sessions", "会话"),
    "again": ("{steps} steps done again", "重做 {steps} 步"),
    "curves": ("Curves", "曲线"),
    "more": ("Other curves", "其他曲线"),
    "learning rate": ("Learning rate", "学习率"),
    "over steps": ("{name} over steps", "{name}（按步数）"),
    "step": ("step", "步"),
    "sign session": ("a session begins", "会话开始"),
    "sign rewind": ("interrupted (reached → went on from)", "中断（到达 → 从此继续）"),
    "sign discarded": ("discarded tail, done again", "被丢弃的尾段（已重做）"),
    "sign raw": ("each step", "每一步"),
    "sign smooth": ("mean of the 4 % of the steps around", "前后共 4% 步数的均值"),
    "sign best": ("best", "最佳"),
    "sign nan": ("not finite (NaN or infinite)", "非有限值（NaN 或无穷）"),
    "drawn": (
        "{of} points, drawn as the smallest and the largest of each stretch.",
        "共 {of} 个点；每一小段画出最小值和最大值。",
    ),
    "settings": ("Settings that differ", "不同的设置"),
    "same settings": ("No setting differs.", "所有设置相同。"),
    "setting": ("setting", "设置"),
    "programs": ("Programs: what differs", "程序：不同之处"),
    "program": ("file or package", "文件或软件包"),
    "marked": ("Marked: not as in {run}.", "标出的与 {run} 不同。"),
    "results": ("Results", "结果"),
    "metric": ("metric", "指标"),
    "at best": ("at the best step", "最佳步"),
    "at last": ("at the last evaluation", "最后一次评估"),
    "best and last": (
        "At the best step; in grey at the last evaluation.",
        "最佳步的数值；灰色为最后一次评估的数值。",
    ),
    "parts": ("Metrics of parts", "分项指标"),
    "predictions": ("Sample predictions", "预测示例"),
    "no pictures": ("{count} pictures were too large to be embedded.", "{count} 张图片过大，未嵌入。"),
    "command": ("Made by", "生成命令"),
    "made": ("at", "时间"),
    "origin": ("began with", "起始权重"),
    "session tip": (
        "session {name}: steps {first} to {last}, {ended}",
        "会话 {name}：第 {first} 至 {last} 步，{ended}",
    ),
    "discarded tip": ("discarded: steps {first} to {last}", "已丢弃：第 {first} 至 {last} 步"),
    "rewind tip": ("reached {reached}, went on from {back}", "到达 {reached}，从 {back} 继续"),
    "begin tip": ("session {name} goes on after step {step}", "会话 {name} 从第 {step} 步之后继续"),
    "nan tip": ("not finite at step {step}", "第 {step} 步非有限值"),
    "no curves": ("These runs recorded no steps.", "这些训练没有步的记录。"),
}


def word(key: str, language: str, **facts: object) -> str:
    """One of the words above, filled in."""
    return WORDS[key][language == "zh"].format_map(facts)
