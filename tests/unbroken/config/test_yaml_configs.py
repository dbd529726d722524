"""YAML configs and their `_BASE_CONFIG_`, as OpenPCDet users write them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from unbroken.config import ConfigError, read_config


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write(
        tmp_path / "cfgs/dataset_configs/sonar.yaml",
        """\
        DATASET: SonarDataset
        RANGE: [0, -20, 50]
        AUGMENTOR: {DISABLE: [none], LIST: [a, b]}
        """,
    )
    write(
        tmp_path / "cfgs/sonar_models/focal.yaml",
        """\
        CLASS_NAMES: [Box, Diver]
        DATA_CONFIG:
            _BASE_CONFIG_: cfgs/dataset_configs/sonar.yaml
            RANGE: [1, 2]
            AUGMENTOR:
                LIST: [c]
        OPTIMIZATION: {LR: 5e-4, EPOCHS: 24, STARTED: 2025-09-04}
        """,
    )
    return tmp_path


def test_a_mapping_starts_from_its_base_and_has_its_own_keys_on_top(app: Path):
    file = read_config(app / "cfgs/sonar_models/focal.yaml")
    assert file.tree == {
        "CLASS_NAMES": ["Box", "Diver"],
        "DATA_CONFIG": {
            "DATASET": "SonarDataset",
            "RANGE": [1, 2],
            "AUGMENTOR": {"DISABLE": ["none"], "LIST": ["c"]},
        },
        "OPTIMIZATION": {"LR": 5e-4, "EPOCHS": 24, "STARTED": "2025-09-04"},
    }
    assert [path.name for path in file.sources] == ["focal.yaml", "sonar.yaml"]


def test_the_base_is_found_wherever_the_command_is_typed(app: Path, monkeypatch: pytest.MonkeyPatch):
    expected = read_config(app / "cfgs/sonar_models/focal.yaml").tree
    for folder, typed in [(app, "cfgs/sonar_models/focal.yaml"), (app / "cfgs", "./sonar_models/focal.yaml")]:
        monkeypatch.chdir(folder)
        assert read_config(Path(typed)).tree == expected


def test_a_copy_of_a_config_elsewhere_finds_its_base_from_the_applications_folder(
    app: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    original = app / "cfgs/sonar_models/focal.yaml"
    copied = write(tmp_path_factory.mktemp("elsewhere") / "mine.yaml", original.read_text(encoding="utf-8"))
    monkeypatch.chdir(app)
    assert read_config(copied).tree == read_config(original).tree


def test_a_base_above_the_file_comes_before_one_where_one_stands(app: Path, monkeypatch: pytest.MonkeyPatch):
    expected = read_config(app / "cfgs/sonar_models/focal.yaml").tree
    write(app / "other/cfgs/dataset_configs/sonar.yaml", "DATASET: Another\n")
    monkeypatch.chdir(app / "other")
    assert read_config(app / "cfgs/sonar_models/focal.yaml").tree == expected


def test_keys_know_their_file_and_line(app: Path):
    file = read_config(app / "cfgs/sonar_models/focal.yaml")
    assert str(file.place_of("DATA_CONFIG.AUGMENTOR.DISABLE.0")).endswith("sonar.yaml:3")
    assert str(file.place_of("DATA_CONFIG.AUGMENTOR.LIST.0")).endswith("focal.yaml:6")
    assert str(file.place_of("DATA_CONFIG.RANGE.2")).endswith("focal.yaml:4")
    assert file.lines["OPTIMIZATION.LR"] == 7


def test_a_base_may_have_a_base_and_the_whole_file_may_have_one(tmp_path: Path):
    write(tmp_path / "a.yaml", "X: 1\nY: {Z: 1, W: 1}\n")
    write(tmp_path / "b.yaml", "_BASE_CONFIG_: a.yaml\nY: {Z: 2}\n")
    write(tmp_path / "c.yaml", "_BASE_CONFIG_: b.yaml\nX: 3\n")
    assert read_config(tmp_path / "c.yaml").tree == {"X": 3, "Y": {"Z": 2, "W": 1}}


def test_a_nested_base_replaces_one_level_deep_before_own_keys_merge(tmp_path: Path):
    write(tmp_path / "outer.yaml", "D: {A: {X: 1, Y: 1}, B: 1}\n")
    write(tmp_path / "inner.yaml", "A: {Z: 1}\n")
    own = write(tmp_path / "own.yaml", "_BASE_CONFIG_: outer.yaml\nD:\n  _BASE_CONFIG_: inner.yaml\n  A: {Q: 1}\n")
    assert read_config(own).tree == {"D": {"A": {"Z": 1, "Q": 1}, "B": 1}}


def test_a_base_that_is_nowhere_is_an_error_listing_the_places_tried(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    standing = tmp_path_factory.mktemp("standing")
    monkeypatch.chdir(standing)
    own = write(tmp_path / "cfgs/own.yaml", "X: 1\nD:\n  _BASE_CONFIG_: cfgs/gone.yaml\n")
    with pytest.raises(ConfigError) as caught:
        read_config(own)
    assert "own.yaml:3" in str(caught.value)
    for folder in (tmp_path / "cfgs", tmp_path, tmp_path.parent, standing):
        assert str(folder / "cfgs/gone.yaml") in str(caught.value)


def test_bases_in_a_circle_are_an_error(tmp_path: Path):
    write(tmp_path / "a.yaml", "_BASE_CONFIG_: b.yaml\n")
    write(tmp_path / "b.yaml", "D: {_BASE_CONFIG_: a.yaml}\n")
    with pytest.raises(ConfigError, match="circle"):
        read_config(tmp_path / "a.yaml")


def test_a_key_written_twice_is_an_error_with_both_lines(tmp_path: Path):
    own = write(tmp_path / "own.yml", "A: 1\nB:\n  C: 1\n  D: 2\n  C: 3\n")
    with pytest.raises(ConfigError, match=r"own\.yml:5: .*`C` .*first in line 3"):
        read_config(own)


def test_a_mapping_that_meets_a_value_in_the_base_is_an_error(tmp_path: Path):
    write(tmp_path / "a.yaml", "X: [1]\n")
    own = write(tmp_path / "own.yaml", "_BASE_CONFIG_: a.yaml\nX: {Y: 1}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml:2: `X` is a mapping here"):
        read_config(own)


def test_anchors_and_merge_keys_work(tmp_path: Path):
    own = write(tmp_path / "own.yaml", "A: &a {x: 1, y: 2}\nB: {<<: *a, y: 3}\n")
    assert read_config(own).tree["B"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1E3", 1e3),
        ("1.5e-3", 1.5e-3),
        ("-2e+2", -200.0),
        ("e5", "e5"),
        ("1e", "1e"),
        ("7", 7),
    ],
)
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, text: str, value: object):
    assert read_config(write(tmp_path / "own.yaml", f"A: {text}\n")).tree == {"A": value}


@pytest.mark.parametrize("text", ["- 1\n", "just text\n", "A: {\n", "A: [1\nB: 2\n"])
def test_what_is_no_mapping_is_an_error(tmp_path: Path, text: str):
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        read_config(write(tmp_path / "own.yaml", text))


def test_an_empty_file_is_an_empty_config(tmp_path: Path):
    assert read_config(write(tmp_path / "own.yaml", "# nothing yet\n")).tree == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_configs_are_read_in_each_encoding_that_windows_writes(tmp_path: Path, encoding: str, end: str) -> None:
    for name, text in {"own.yaml": "# 配置\nA:\n  B: 1\n", "own.py": "# 配置\nA = dict(B=1)\n"}.items():
        (tmp_path / name).write_bytes(text.replace("\n", end).encode(encoding))
        assert read_config(tmp_path / name).tree == {"A": {"B": 1}}


@pytest.mark.parametrize("name", ["own.yaml", "own.py"])
def test_a_config_in_an_encoding_that_it_does_not_name_says_how_to_save_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("# 配置\nA: 1\n".encode("gbk"))
    said = r"this is no text that can be read. Expected text in UTF-8, .* found byte 0xc5 at 2. Save it as UTF-8"
    with pytest.raises(ConfigError, match=said):
        read_config(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A:\n\tB: 1\n", "own.yaml:2: .*Indent with spaces: YAML takes no tabs"),
        ("A:\n  B: 1\n\tC: 2\n", "own.yaml:3: .*Indent with spaces: YAML takes no tabs"),
        ("A：1\nB: 2\n", "own.yaml:2: .*： is a full-width character: type : instead"),
        ("A: 1\nB：2\nC: 3\n", "own.yaml:.*： is a full-width character: type : instead"),
        ("A: [1, 2］\nB: 3\n", "own.yaml:2: .*］ is a full-width character: type ] instead"),
        ('A: "x”\n', 'own.yaml:.*” is a full-width character: type " instead'),
    ],
)
def test_what_a_keyboard_wrote_for_yaml_is_answered_with_what_to_type(tmp_path: Path, text: str, said: str):
    with pytest.raises(ConfigError, match=said):
        read_config(write(tmp_path / "own.yaml", text))
