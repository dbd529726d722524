"""Runs for the pages: really trained, really killed and resumed; and a copy whose every name is out for harm."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.twin.aerial import write_job
from tests.twin.killing import kill_after_steps, run_to_end

HARM = '<script>window.harmed = 1</script><img src=x onerror="window.harmed = 2"><a href="javascript:alert(1)">x</a>'
ANSI = "\x1b[31mred\x1b]0;title\x07\u202egnp"


def killed_and_resumed(folder: Path) -> list[Path]:
    """Two trainings of the aerial application; the first was killed twice, the second once."""
    config = write_job(folder)
    runs = []
    for tag, kills, options in (("first", (12, 24), []), ("second", (21,), ["optim_wrapper.optimizer.lr=0.001"])):
        run = folder / "work_dirs" / tag
        words = ["train", "mapsage", config, "--tag", tag, "--work-dir", run]
        words += ["--cfg-options", *options] if options else []
        command = [sys.executable, "-m", "unbroken", *map(str, words)]
        for steps in kills:
            kill_after_steps(run, command, steps=steps)
        done = run_to_end(command)
        assert done.returncode == 0, done.output
        runs.append(run)
    return runs


def out_for_harm(run: Path, folder: Path) -> Path:
    """A copy of a run in which every text that a stranger may choose is an attack, and some values are no numbers."""
    target = Path(shutil.copytree(run, folder / "<img src=x onerror=alert(1)>", symlinks=True))
    edit_json(target / "unbroken" / "run.json", tag=f"{HARM}{ANSI}" + "y" * 100_000, id=f"{HARM}id")
    for config in (target / "unbroken" / "configs").iterdir():
        edit_json(config, **{HARM: HARM, "ansi": ANSI, "long": "z" * 100_000, "</script>": {"a</title>": "%{x}$y$"}})
    _edit_metrics(target / "unbroken" / "metrics.jsonl")
    pictures = target / "predictions" / "36"
    shutil.rmtree(target / "predictions", ignore_errors=True)
    pictures.mkdir(parents=True)
    (pictures / '"><svg onload=alert(1)>.png').write_bytes(b"<svg onload='window.harmed = 3'>")
    return target


def _edit_metrics(path: Path) -> None:
    lines = []
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        if "evaluation" in record:
            record["evaluation"] |= {HARM: 1.5, "%{x} $y$ <b>": "nan"}
        elif "rewound" not in record:
            record[HARM] = "nan"
            record["</script>"] = 1e308
            record |= {"loss": "nan"} if record["step"] in (5, 6, 30) else {}
        lines.append(json.dumps(record))
    path.write_text("".join(f"{line}\n" for line in [*lines, "not json", "{}"]), "utf-8")


def edit_json(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **facts}), "utf-8")
