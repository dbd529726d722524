"""What is installed is what is here: a wheel, without its sources, installs and does what the commands promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.processes import environment

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("unbroken-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own; what it needs is that of these tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", str(folder), str(wheel)], check=True)
    return folder


def typed(installed: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of what was installed, outside the sources."""
    command = [sys.executable, str(installed / "bin" / "unbroken"), *words]
    known = environment(PYTHONPATH=str(installed))
    return subprocess.run(command, cwd=place, env=known, capture_output=True, text=True, check=False)


def test_its_commands_run_outside_the_sources(installed: Path, tmp_path: Path) -> None:
    asked = "import unbroken, mapsage, focalsst; print(unbroken.__file__, mapsage.__file__, focalsst.__file__)"
    known = environment(PYTHONPATH=str(installed))
    found = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, env=known, capture_output=True, text=True)
    assert all(Path(file).is_relative_to(installed) for file in found.stdout.split()) and found.stdout
    for words in (["--help"], ["--version"], ["ls"], ["train", "mapsage", "--help"], ["completion", "bash"]):
        done = typed(installed, tmp_path, *words)
        assert done.returncode == 0 and done.stdout and not done.stderr, (words, done)
    made = typed(installed, tmp_path, "data", "aerial", "data/aerial")
    assert made.returncode == 0 and (tmp_path / "data/aerial").is_dir(), made
    assert "there is no such config" in typed(installed, tmp_path, "why", "mapsage", "config.py").stderr


def test_it_has_one_version_its_licence_and_its_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = file.read(about).decode()
        (licence,) = (name for name in names if name.endswith("licenses/LICENSE"))
        assert file.read(licence) == (ROOT / "LICENSE").read_bytes()
    version = re.search(r'"(.+)"', (ROOT / "src/unbroken/version.py").read_text().partition("__version__")[2])
    assert version and f"\nVersion: {version[1]}\n" in metadata and wheel.name.startswith(f"unbroken-{version[1]}-")
    assert {f"{package}/py.typed" for package in ("focalsst", "mapsage", "unbroken")} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "docs"))]


def test_alone_it_needs_little_and_each_extra_names_the_rest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    alone = {re.split("[>=]", need)[0] for need in project["dependencies"]}
    assert alone == {"torch", "numpy", "pyyaml", "pydantic", "rich", "xxhash"}
    extras = project["optional-dependencies"]
    of_extras = {re.split("[>=]", need)[0] for extra in ("apps", "report") for need in extras[extra]}
    assert of_extras == {"opencv-python-headless", "pillow", "matplotlib", "tensorboard", "plotly"}


def without(package: str, words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    """A command where a package is not installed."""
    program = f"import sys; sys.modules[{package!r}] = None; from unbroken.cli import main; sys.exit(main({words!r}))"
    known = environment(PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=place, env=known, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("package", "extra", "words"),
    [
        ("PIL", "apps", ["data", "aerial", "data"]),
        ("plotly", "report", ["compare", "one", "two", "--html", "out.html"]),
    ],
)
def test_who_lacks_a_package_is_told_its_extra(package: str, extra: str, words: list[str], tmp_path: Path) -> None:
    for tag in ("one", "two"):
        record = {"id": tag, "recipe": "r", "tag": tag, "created": "2026-01-01", "seed": 0}
        (tmp_path / tag / "unbroken").mkdir(parents=True)
        (tmp_path / tag / "unbroken" / "run.json").write_text(json.dumps(record))
    done = without(package, words, tmp_path)
    assert done.returncode == 2 and f"pip install 'unbroken[{extra}]'" in done.stderr, done
    assert package in done.stderr and "Traceback" not in done.stderr


def test_a_training_without_tensorboard_goes_on_without_its_curves(tmp_path: Path) -> None:
    done = without("tensorboard", ["train", "tests.unbroken.tiny_recipe:recipe", "run", "4"], tmp_path)
    assert done.returncode == 0 and done.stdout.count("pip install 'unbroken[report]'") == 1, done
    assert not list(tmp_path.rglob("events.out.*")) and list(tmp_path.rglob("*.pth"))


def test_ci_runs_the_same_two_commands_on_every_python_that_is_promised() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == promised and promised[0] in project["requires-python"]
    assert any(step.get("run", "").startswith(".ci/run") for step in job["steps"])
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make check\nmake test")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["license"] == project["license"] and {"cff-version", "message", "title", "authors"} <= set(cited)
