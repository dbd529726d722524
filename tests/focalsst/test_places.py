"""One config is one run folder, however its path is typed and from wherever."""

from __future__ import annotations

from pathlib import Path

import pytest

from focalsst.recipes import find_data, places_of
from tests.focalsst.nano_job import write_nano_job
from tests.unbroken.cli.typing_commands import process

TYPED = "cfgs/sonar_models/tiny.yaml"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here") / "app"
    folder.mkdir()
    write_nano_job(folder)
    (folder / "elsewhere").mkdir()
    (folder / "linked").symlink_to(folder / "cfgs" / "sonar_models")
    return folder


def run_of(typed: str | Path, *, tag: str | None = "t", output: Path | None = None) -> Path:
    return places_of(str(typed), tag=tag, output=output).run.resolve()


SPELLINGS = [
    "cfgs/sonar_models/tiny.yaml",
    "./cfgs/sonar_models/tiny.yaml",
    "cfgs//sonar_models/./tiny.yaml",
    "cfgs/dataset_configs/../sonar_models/tiny.yaml",
    "elsewhere/../cfgs/sonar_models/tiny.yaml",
    "../app/cfgs/sonar_models/tiny.yaml",
    "cfgs\\sonar_models\\tiny.yaml",
    ".\\cfgs\\sonar_models\\tiny.yaml",
    "linked/tiny.yaml",
]


@pytest.mark.parametrize("typed", SPELLINGS)
def test_every_spelling_of_a_config_is_the_same_run(app: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.chdir(app)
    places = places_of(typed, tag="t", output=None)
    assert places.run == Path("output/sonar_models/tiny/t"), "as seen from here, so that it moves with the folder"
    assert places.config.is_file()
    assert places.root == app.resolve()


def test_from_another_folder_it_is_the_same_run_and_the_same_data(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = app.resolve() / "output/sonar_models/tiny/t"
    for folder, typed in (
        (app / "cfgs", "sonar_models/tiny.yaml"),
        (app / "cfgs" / "sonar_models", "tiny.yaml"),
        (app / "elsewhere", "../cfgs/sonar_models/tiny.yaml"),
        (Path("/"), str(app / TYPED)),
    ):
        monkeypatch.chdir(folder)
        assert run_of(typed) == expected
        places = places_of(typed, tag="t", output=None)
        assert find_data("data/sonar", places).resolve() == app.resolve() / "data/sonar"


def test_the_last_folder_of_that_name_counts_and_the_tag_has_a_default(tmp_path: Path) -> None:
    config = tmp_path / "cfgs" / "app" / "cfgs" / "a" / "b" / "model.v2.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("")
    assert run_of(config, tag=None) == tmp_path.resolve() / "cfgs/app/output/a/b/model.v2/default"


def test_a_config_outside_any_such_folder_has_its_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    assert places_of("mine.yaml", tag=None, output=None).run == Path("output/mine/default")
    assert places_of("./mine.yaml", tag="t", output=None).run == Path("output/mine/t")


def test_another_output_folder_keeps_group_config_and_tag(app: Path, tmp_path: Path) -> None:
    assert run_of(app / TYPED, output=tmp_path / "runs") == tmp_path.resolve() / "runs/sonar_models/tiny/t"


def test_a_file_name_with_a_backslash_is_taken_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "cfgs" / "odd\\name.yaml"
    config.parent.mkdir()
    config.write_text("")
    assert places_of(str(config), tag="t", output=None).config == config


def test_a_real_launch_finds_the_run_from_another_folder(app: Path) -> None:
    """Base configs and data are found as well; nothing is written."""
    before = sorted(path for path in app.rglob("*"))
    said = process("why", "focalsst", "--cfg_file", app / "linked" / "tiny.yaml", "--extra_tag", "t")
    assert said.code == 0, said.err
    assert f"FRESH - train {app.resolve()}/output/sonar_models/tiny/t from step 1 of 10" in said.out
    assert sorted(path for path in app.rglob("*")) == before
