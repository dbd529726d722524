"""After a demo: how to make `unbroken` a command of this terminal, and lines that are not cut within a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mapsage import demo
from unbroken.cli.commands.demo import where_the_command_is


def test_where_the_command_is_none_the_line_that_makes_it_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(sys.executable).parent
    if not (here / "activate").is_file():
        assert where_the_command_is() == ""
        return
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    said = where_the_command_is()
    command = said.removeprefix("to type `unbroken` in this terminal: ")
    done = subprocess.run(["bash", "-c", f"{command} && command -v unbroken"], capture_output=True, text=True)
    assert done.stdout.strip() == str(here / "unbroken"), (said, done.stderr)
    monkeypatch.setenv("PATH", f"{here}:/usr/bin:/bin")
    assert where_the_command_is() == ""


def test_a_long_line_of_the_demo_is_wrapped_between_words(tmp_path: Path) -> None:
    line = "  note: left out of the config: " + ", ".join(
        f"model.part_{number}.key-with-dashes" for number in range(20)
    )
    (tmp_path / "log").write_text(f"{line}\nfinished\n")
    said: list[str] = []
    demo._show(tmp_path / "log", 0, said.append, quiet=False)
    shown = "\n".join(said).splitlines()
    assert max(map(len, shown)) <= demo.WIDTH and len(shown) > 3
    words = [word for each in shown for word in each.replace("|", " ").split()]
    assert words == [*line.split(), "finished"]
