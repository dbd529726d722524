"""Where a run of a config lies, however the config's path is typed: `output/<group>/<config>/<extra_tag>`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIGS = "cfgs"
DEFAULT_TAG = "default"


@dataclass(frozen=True, kw_only=True)
class Places:
    """`config` as it can be opened, `root` the folder that holds `cfgs`, `run` the run's folder."""

    config: Path
    root: Path
    tag: str
    run: Path
    usual: tuple[Path, ...]  # where it lies without `--output`, or with the folder of the config for the current one


def places_of(typed: str, *, tag: str | None, output: Path | None) -> Places:
    """The places of a config: the group is what stands between `cfgs` and the file, the rest is of no account.

    A config outside any folder `cfgs` has no group, and its runs lie below the current folder.
    """
    config = Path(typed)
    if not config.exists() and "\\" in typed:  # as PowerShell completes it
        config = Path(typed.replace("\\", "/"))
    whole = config.parent.resolve() / config.name
    folders = whole.parent.parts
    if CONFIGS in folders:
        place = len(folders) - 1 - folders[::-1].index(CONFIGS)
        root, group = Path(*folders[:place]), Path(*folders[place + 1 :])
    else:
        root, group = Path.cwd(), Path()
    name = tag or DEFAULT_TAG
    below = group / whole.stem / name
    run = (output or root / "output") / below
    usual = tuple(dict.fromkeys(folder / "output" / below for folder in (root, whole.parent)))
    return Places(config=config, root=root, tag=name, run=_short(run), usual=usual)


def find_data(written: str, places: Places) -> Path:
    """The data root that a config names: as seen from the current folder, else from the one that holds `cfgs`."""
    path = Path(written)
    from_root = _short(places.root / path)
    return from_root if not path.is_dir() and from_root.is_dir() else path


def _short(path: Path) -> Path:
    """The path as seen from the current folder, if it lies below it: shorter to read, and it moves with the folder."""
    whole = path.parent.resolve() / path.name
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole
