"""Whether a file is whole: a verdict with its reason, never an exception and never a guess.

With a digest that was recorded at the save, every byte of the file is checked. Without one, what the file
itself carries is checked: the checksum of every zip entry, or, in formats without checksums, that all
lengths agree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal

from unbroken.checkpoint.entries import read_chunks
from unbroken.checkpoint.sharded import DIRECTORY, are_shards, is_sharded, shards_in, size_of
from unbroken.checkpoint.structure import Structure, open_checkpoint, structure_in, tensors
from unbroken.errors import DamagedFile, ForeignFile, UnbrokenError, UsageError
from unbroken.ids import place
from unbroken.storage.digest import can_take, digest_of, is_of, kind_of

WHOLE_FILE = "whole-file digest"
LENGTH = "length"
STRUCTURE = "structure"
ZIP_CRC = "zip CRC"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found about one file, and by which method."""

    path: Path
    state: Literal["good", "damaged", "missing", "foreign"]
    reason: str
    method: str
    digest: str | None = None


def verify_file(
    path: str | os.PathLike[str], *, expected_digest: str | None = None, expected_bytes: int | None = None
) -> Verification:
    """Judge one file: its length first, which is free, then every byte of it.

    That a newer version wrote the file is no damage.
    """
    path = Path(path)
    try:
        found_bytes = size_of(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return _missing(path)
    except OSError as error:
        return _unreadable(path, error, LENGTH)
    if expected_bytes is not None and path.is_file() and found_bytes != expected_bytes:
        return _wrong_length(path, found_bytes, expected_bytes)
    try:
        with open_checkpoint(path) as file:
            return verify_open(file, path, expected_digest=expected_digest, expected_bytes=expected_bytes)
    except UsageError:
        return _missing(path)
    except DamagedFile as error:
        method = STRUCTURE if expected_digest is None else WHOLE_FILE
        return Verification(path=path, state="damaged", reason=_sentence(error), method=method)


def verify_open(
    file: BufferedReader,
    path: Path,
    *,
    expected_digest: str | None,
    expected_bytes: int | None,
    into: memoryview | None = None,
) -> Verification:
    """The same of a file that is open already; its bytes stand in `into` where they match the digest."""
    found_bytes = os.fstat(file.fileno()).st_size
    if expected_bytes is not None and not is_sharded(path) and found_bytes != expected_bytes:
        return _wrong_length(path, found_bytes, expected_bytes)
    known = expected_digest is not None and can_take(kind_of(expected_digest))  # else each entry has its checksum
    found = _by_digest(file, path, expected_digest, into) if known and expected_digest else _by_content(file, path)
    return _with_shards(file, found) if found.state == "good" and is_sharded(path) else found


def _with_shards(file: BufferedReader, head: Verification) -> Verification:
    """What is found of a folder whose head is good: each shard that this names is there, as it was written."""

    def damaged(reason: str) -> Verification:
        return Verification(path=head.path, state="damaged", reason=reason, method=head.method)

    stamp = structure_in(file, head.path).stamp
    if not are_shards(stamp.get("shard_files")):
        return damaged("its head does not say which shards belong to it")
    unread = 0  # whose digest cannot be taken here
    for shard in shards_in(stamp):
        path = place(head.path, shard.name)
        try:
            found_bytes = path.stat().st_size
            if found_bytes != shard.size_bytes:
                return damaged(f"{shard.name}: {_wrong_length(path, found_bytes, shard.size_bytes).reason}")
            unread += not can_take(kind_of(shard.digest))
            if can_take(kind_of(shard.digest)) and not is_of(path, shard.digest):
                return damaged(f"{shard.name} is not what this save wrote: altered, or of another save")
        except FileNotFoundError:
            if path.name != DIRECTORY:  # nothing is read of it, and notebook hosts drop what is hidden
                return damaged(f"{shard.name} is missing")
        except OSError as error:
            return damaged(f"{shard.name}: {_unreadable(path, error, WHOLE_FILE).reason}")
    return replace(head, method=f"{head.method}, {unread} shards by their length alone") if unread else head


def _missing(path: Path) -> Verification:
    return Verification(path=path, state="missing", reason="there is no such file", method="look")


def _unreadable(path: Path, error: OSError, method: str) -> Verification:
    reason = f"the file cannot be read ({error.strerror or error})"
    return Verification(path=path, state="damaged", reason=reason, method=method)


def _wrong_length(path: Path, found: int, expected: int) -> Verification:
    if found < expected:
        reason = f"the file is cut off: {found:,} of {expected:,} bytes are there"
    else:
        reason = f"the file is {found - expected:,} bytes longer than the {expected:,} that were written"
    return Verification(path=path, state="damaged", reason=reason, method=LENGTH)


def _by_digest(file: BufferedReader, path: Path, expected: str, into: memoryview | None) -> Verification:
    try:
        found = digest_of(file, kind_of(expected), into=into)
    except OSError as error:
        return _unreadable(path, error, WHOLE_FILE)
    if found == expected:
        reason = "every byte is as it was written"
        return Verification(path=path, state="good", reason=reason, method=WHOLE_FILE, digest=found)
    inner = _by_content(file, path)
    where = inner.reason if inner.state == "damaged" else "no tensor is hit, or it was replaced as a whole"
    reason = f"the file was altered since it was written ({found[:20]}, not {expected[:20]}): {where}"
    return Verification(path=path, state="damaged", reason=reason, method=WHOLE_FILE, digest=found)


def _by_content(file: BufferedReader, path: Path) -> Verification:
    try:
        structure = structure_in(file, path)
    except ForeignFile as error:
        return Verification(path=path, state="foreign", reason=_sentence(error), method=STRUCTURE)
    except UnbrokenError as error:
        return Verification(path=path, state="damaged", reason=_sentence(error), method=STRUCTURE)
    if structure.trailing_bytes:
        reason = f"{structure.trailing_bytes:,} bytes stand behind the last tensor"
        return Verification(path=path, state="damaged", reason=reason, method=STRUCTURE)
    if structure.format != "torch zip":
        reason = "all lengths agree; the format has no checksums"
        return Verification(path=path, state="good", reason=reason, method=STRUCTURE)
    return _by_checksums(file, structure)


def _by_checksums(file: BinaryIO, structure: Structure) -> Verification:
    """Read every entry to its end; one that was written without a checksum has only its length."""
    filled = sum(spot.size_bytes > 0 for spot in structure.entries)
    unchecked = sum(spot.crc is None for spot in structure.entries)
    method, held = ZIP_CRC, f"{filled - unchecked} of {filled} entries match their checksums"
    if unchecked == filled:
        method, held = STRUCTURE, "all lengths agree; the file was written without checksums"
    elif unchecked:
        method = f"{ZIP_CRC}, {unchecked} entries unchecked"
    for spot in structure.entries:
        try:
            for _ in read_chunks(file, spot, where=structure.path):
                pass
        except OSError as error:
            return _unreadable(structure.path, error, method)
        except DamagedFile as error:
            reason = _sentence(error) + _tensors_of(structure, spot.entry)
            return Verification(path=structure.path, state="damaged", reason=reason, method=method)
    return Verification(path=structure.path, state="good", reason=held, method=method)


def _tensors_of(structure: Structure, entry: str) -> str:
    """Say which tensors a damaged entry holds; several can share one storage."""
    keys = {key for key, spot in structure.spots.items() if spot.entry == entry}
    names = [name for name, ref in tensors(structure) if ref.storage_key in keys]
    if not names:
        return ""
    return f"; it holds tensor {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _sentence(error: UnbrokenError) -> str:
    found = f" (expected {error.expected}, found {error.found})" if error.expected and error.found else ""
    return error.what + found
