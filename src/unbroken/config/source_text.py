"""The text of a config file, or the reason why it cannot be had."""

from __future__ import annotations

from pathlib import Path

from unbroken.config.meter import CHAIN, FILE_BYTES, Meter, TooMuch
from unbroken.errors import ConfigError
from unbroken.storage import NotOrdinary, read_whole
from unbroken.text import NOT_TEXT, text_of


def read_text(path: Path, meter: Meter, *, named_in: object = "") -> str:
    """Read a config file of sensible size; `named_in` is the place that refers to it."""
    where = named_in or path
    try:
        data = read_whole(path, most_bytes=FILE_BYTES)
        meter.open_file(len(data))
        return text_of(data).replace("\r\n", "\n").replace("\r", "\n")
    except NotOrdinary as error:
        raise ConfigError(
            where,
            f"{path} is no config file: {error.strerror}",
            expected=f"an ordinary file of at most {FILE_BYTES:,} bytes",
        ) from error
    except TooMuch as error:
        raise ConfigError(where, str(error)) from error
    except FileNotFoundError as error:
        raise ConfigError(where, f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            path,
            "this is no text that can be read",
            expected=NOT_TEXT,
            found=f"byte 0x{error.object[error.start]:02x} at {error.start}",
            do="Save it as UTF-8 in your editor.",
        ) from error
    except OSError as error:
        who = "" if where == path else f"{path}: "
        do = "See who may read it." if isinstance(error, PermissionError) else ""
        raise ConfigError(where, f"{who}this cannot be read ({error.strerror})", do=do) from error


def refuse_circle(path: Path, chain: tuple[Path, ...], *, named_in: object) -> None:
    """Raise when a base is one of the files that lead to it, or when there is no end to them."""
    if path in chain:
        circle = " -> ".join(str(file) for file in (*chain[chain.index(path) :], path))
        raise ConfigError(named_in, f"the bases go in a circle: {circle}")
    if len(chain) >= CHAIN:
        raise ConfigError(named_in, f"more than {CHAIN} files are based on one another")
