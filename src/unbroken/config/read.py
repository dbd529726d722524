"""Reading a config file: which language it is in, and what to say when it is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from unbroken.config.config_file import ConfigFile
from unbroken.config.nearest import SUFFIXES, configs_near
from unbroken.errors import ConfigError
from unbroken.storage import require_local
from unbroken.text import plain

STATES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def read_config(path: Path, *, environment: Mapping[str, str] | None = None) -> ConfigFile:
    """Read a config with its bases merged in, in Python's syntax or YAML; nothing in it is executed.

    Args:
        path: A file whose name ends in .py, .yaml or .yml.
        environment: What `{{$NAME:default}}` in a Python config may see; None: nothing.
    Returns:
        The data, and where each key was written.
    Raises:
        ConfigError: It is not there, no config, or cannot be read; file and line are named.
        UsageError: It is an address of the web, and not a path.
    """
    path = Path(path)
    require_local(path)
    meant = _meant(path)
    if _is_folder(path):
        raise ConfigError(path, "this is a folder, and no config file", do=meant or configs_near(path / "x"))
    if path.suffix in STATES:
        do = "The config comes first, then the checkpoint: for a training behind --ckpt or --pretrained_model."
        raise ConfigError(path, "this is a checkpoint, and no config file", do=do)
    if path.suffix not in SUFFIXES:
        what = "the name of a config ends in .py, .yaml or .yml"
        raise ConfigError(path, what, found=path.suffix or "no suffix", do=meant)
    if not _exists(path):
        raise ConfigError(path, "there is no such config file", do=meant or configs_near(path))
    if path.suffix == ".py":
        from unbroken.config.python_file import read_python

        return read_python(path, environment=environment or {})
    from unbroken.config.yaml_file import read_yaml

    return read_yaml(path)


def _meant(path: Path) -> str:
    """Which config that is there was meant by a name that is spelled otherwise, or lacks its end."""
    typed = str(path)
    tries = [f"{typed}{suffix}" for suffix in SUFFIXES]
    tries += [plain(typed), typed.replace("\\", "/"), plain(typed.replace("\\", "/"))]
    found = next((each for each in tries if each != typed and _exists(Path(each)) and not _is_folder(Path(each))), "")
    if found:
        return f"Did you mean {found}?"
    if os.name != "nt" and OF_WINDOWS.match(typed):
        return "This is a path of Windows, and this system has none: type it as it is here, with /."
    return ""


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True
