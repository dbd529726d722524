"""TensorBoard's own server over a folder, asked as its pages ask it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 90.0
STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


class Server:
    """A server that answers."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self._at, self._process = f"http://127.0.0.1:{port}/", process

    def ask(self, path: str, body: Any = None, **query: str) -> Any:
        address = f"{self._at}data/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def scalars(self, run: str, tag: str) -> list[tuple[int, float]]:
        """The points of a curve."""
        return [(step, value) for _, step, value in self.ask("plugin/scalars/scalars", run=run, tag=tag)]

    def tags(self, run: str, plugin: str = "scalars") -> set[str]:
        """The names of a run's curves, or images."""
        return set(self.ask(f"plugin/{plugin}/tags").get(run, ()))

    def image_steps(self, run: str, tag: str) -> list[int]:
        """The steps at which an image is shown."""
        return [image["step"] for image in self.ask("plugin/images/images", run=run, tag=tag, sample="0")]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the HParams tab."""
        body = {"allowedStatuses": STATUSES, "colParams": [], "startIndex": 0, "sliceSize": 100, "includeMetrics": True}
        answer = self.ask("plugin/hparams/session_groups", {"experimentName": "", **body})
        return list(answer.get("sessionGroups", []))

    def settings_shown(self) -> set[str]:
        """The columns of settings of the HParams tab."""
        answer = self.ask("plugin/hparams/experiment", {"experimentName": "", "includeMetrics": False})
        return {column["name"] for column in answer["hparamInfos"]}

    def wait_until(self, true: Callable[[], bool]) -> None:
        """It reads the files one by one."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                if true():
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise AssertionError("TensorBoard does not show what is expected")


@contextmanager
def served(logdir: Path, *, fast: bool, log: Path) -> Iterator[Server]:
    """`tensorboard --logdir LOGDIR`, with its reader in Rust or the one in Python, on a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}", f"--port={port}"]
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, f"--load_fast={str(fast).lower()}"], stdout=output, stderr=output) as process,
    ):
        try:
            yield Server(port, process)
        finally:
            process.terminate()
            process.wait()
