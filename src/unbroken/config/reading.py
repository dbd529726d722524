"""Reading a config file: which language it is in, and what to say when it is not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unbroken.config.config_file import ConfigFile
from unbroken.config.nearest import nearest
from unbroken.errors import ConfigError
from unbroken.values import require_local

SUFFIXES = (".py", ".yaml", ".yml")


def read_config(path: Path, *, environment: Mapping[str, str] | None = None) -> ConfigFile:
    """Read a config with its bases merged in; nothing in it is executed.

    `environment` is what `{{$NAME:default}}` in a Python config may see: nothing unless it is given.
    """
    path = Path(path)
    require_local(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(path, "the name of a config ends in .py, .yaml or .yml", found=path.suffix or "no suffix")
    if not _exists(path):
        raise ConfigError(path, "there is no such config file", do=_what_exists_near(path))
    if path.suffix == ".py":
        from unbroken.config.python_file import read_python

        return read_python(path, environment=environment or {})
    from unbroken.config.yaml_file import read_yaml

    return read_yaml(path)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True


def _what_exists_near(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        standing = next(parent for parent in folder.absolute().parents if parent.is_dir())
        return f"There is no folder {folder} either; what exists of it is {standing}."
    names = sorted(item.name for item in folder.iterdir() if item.suffix in SUFFIXES)
    close = nearest(path.name, names)
    if close:
        return f"Did you mean {folder / close}?"
    return f"In {folder} there is: {', '.join(names[:12])}." if names else f"There is no config in {folder.resolve()}."
