"""A real headless Chromium, spoken to through chromedriver by its plain HTTP protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
PATIENCE_S = 60.0


class Browser:
    """One session of a browser."""

    def __init__(self, driver: str, session: str) -> None:
        self._address = f"{driver}/session/{session}"

    def open(self, page: Path) -> None:
        """Load a file, and wait until its scripts have run."""
        ask("POST", f"{self._address}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page; what it returns."""
        return ask("POST", f"{self._address}/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str) -> Any:
        """Run a script again and again until it returns something that counts as true."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            if found := self.run(script):
                return found
            time.sleep(0.05)
        raise AssertionError(f"never became true: {script}")

    def devtools(self, command: str, **parameters: Any) -> Any:
        """One command of the DevTools protocol."""
        return ask("POST", f"{self._address}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int = 900, *, phone: bool = False) -> None:
        """The size of the page in CSS pixels, also below the smallest window."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    def theme(self, name: str) -> None:
        """`light` or `dark`, as if the system were set so."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """A picture of the page, all of it."""
        picture = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        with file.open("wb") as target:
            target.write(base64.b64decode(picture["data"]))

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What the browser noted since the last look: `browser` (the console) or `performance` (all requests)."""
        found: list[dict[str, Any]] = ask("POST", f"{self._address}/se/log", {"type": kind})
        return found

    def console(self) -> list[str]:
        """Everything that was complained of."""
        return [entry["message"] for entry in self.log("browser")]

    def requests(self) -> list[str]:
        """The addresses of everything that was asked for."""
        events = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start both programs, and end them."""
    chromium, chromedriver = (required(name) for name in ("chromium", "chromedriver"))
    process = subprocess.Popen([chromedriver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        driver = f"http://127.0.0.1:{_port_of(process)}"
        options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        answer = ask("POST", f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})
        try:
            yield Browser(driver, answer["sessionId"])
        finally:
            ask("DELETE", f"{driver}/session/{answer['sessionId']}")
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def required(name: str) -> str:
    """The path of a program that these tests cannot do without."""
    found = shutil.which(name)
    assert found, f"{name} is missing. Install it: apt-get install chromium chromium-driver (as .ci/run does)"
    return found


def _port_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if "started successfully on port" in line:
            return line.rstrip().rstrip(".").rpartition(" ")[2]
    raise AssertionError("chromedriver ended without a word")


def ask(method: str, address: str, data: Any = None) -> Any:
    body = json.dumps(data).encode() if data is not None else None
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{address}: {error.read().decode()[:2000]}") from None
