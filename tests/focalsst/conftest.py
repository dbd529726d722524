"""The application's folder, with a tiny job in it, for the tests that are typed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.focalsst.nano_job import write_nano_job


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; a module may have one of its own."""
    folder = tmp_path_factory.mktemp("app")
    write_nano_job(folder)
    return folder


@pytest.fixture
def in_the_application_s_folder(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is typed there."""
    monkeypatch.chdir(app)
