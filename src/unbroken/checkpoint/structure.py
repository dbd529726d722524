"""The structure of a checkpoint file: what is in it, by name, without reading one tensor and without torch.

Formats: the zip of `torch.save`, its legacy form, and safetensors. Whatever is wrong with a file is said as
DamagedFile; a path that does not exist is a UsageError that names its neighbours.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from unbroken.checkpoint.containers import (
    FIRST_BYTES,
    SMALL_BYTES,
    Contents,
    how_to_unpack,
    looks_like_safetensors,
    read_archive,
    read_legacy,
    read_safetensors,
)
from unbroken.checkpoint.entries import bytes_in, in_native_order, read_spot
from unbroken.checkpoint.kinds import STAMP, Kind, has_optimizer, model_part, recognise
from unbroken.checkpoint.sharded import head_of, is_cut_off, is_sharded, size_of, with_references
from unbroken.checkpoint.tree import Endless, TensorRef, check_tree, walk
from unbroken.clock import Clock, SystemClock
from unbroken.errors import DamagedFile, ForeignFile, UsageError
from unbroken.storage import open_ordinary, require_local
from unbroken.text import printable

HEAD_BYTES = 512
MOST_KEPT = 4  # structures that were read last
MOST_NODES = 50_000  # of a tree that is kept: about 10 MB of a training's memory
GRAIN_S = 3.0  # FAT counts in two seconds, everything else is finer
# Tensors may be views of one block (tied weights) or expanded (a stride of 0), but each becomes numbers of its own when
# it is loaded. Files of real programs unfold into once or twice what they store; small ones may do as they like.
MOST_UNFOLDED = 4
NOT_DOWNLOADED = {
    b"<!DO": "a web page",
    b"<!do": "a web page",
    b"<htm": "a web page",
    b"<HTM": "a web page",
    b"version https://git-lfs": "a git-lfs pointer; the file itself was not downloaded",
}
FOREIGN_HEADS = {
    rb"\x89HDF": "an HDF5 file, as Keras writes",
    rb"\x1f\x8b": "a gzip file",
    rb"BZh": "a bzip2 file",
    rb"\xfd7zXZ": "an xz file",
    rb"\x28\xb5\x2f\xfd": "a zstandard file",
    rb"7z\xbc\xaf": "a 7z file",
    rb"Rar!": "a RAR file",
    rb".{257}ustar": "a tar file",
    rb"\s*\{\s*\"": "a JSON file",
    rb"\x93NUMPY": "a numpy array",
    rb"GGUF": "a GGUF file, which is for inference",
    rb"\x08[\x01-\x20]\x12.(?:pytorch|tf2onnx|skl2onnx|onnx)": "an ONNX file, which is for inference",
    rb"....TFL3": "a TensorFlow Lite file, which is for inference",
    rb"\x89PNG": "a picture",
    rb"\xff\xd8\xff": "a picture",
    rb"%PDF": "a PDF file",
}
TEXTS = (".py", ".yaml", ".yml", ".txt", ".log", ".md", ".csv", ".toml", ".ini", ".cfg", ".sh")
PACKED = {"a gzip file", "a bzip2 file", "an xz file", "a zstandard file", "a 7z file", "a RAR file", "a tar file"}


@dataclass(frozen=True, kw_only=True)
class Structure(Contents, Kind):
    """A checkpoint file without its numbers."""

    path: Path
    size_bytes: int
    has_optimizer: bool

    @property
    def stamp(self) -> Mapping[str, Any]:
        """Our own top-level entry; empty in a file of others."""
        own = self.tree.get(STAMP) if isinstance(self.tree, dict) else None
        return own if isinstance(own, dict) else {}


# -- what was read last ----------------------------------------------------------------------------------------------


class Recent:
    """The structures that were read last, while their files stay as they are: a launch asks for one several times.

    A file is known by what the system says of the opened one. A change within the grain of a file system's times would
    not show in them, so a file is kept only when its last change lies further back than that. A tree that is handed out
    is nobody's to change.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()  # a backup beside the training reads too
        self._found: dict[tuple[int, ...], Structure] = {}

    def get(self, facts: os.stat_result) -> Structure | None:
        """What was found in a file that is as it was then."""
        with self._lock:
            return self._found.get(known_by(facts))

    def keep(self, facts: os.stat_result, found: Structure, *, nodes: int) -> None:
        """Keep what was found, where it is not too much of it and a later change of the file would show."""
        # Windows tells no time of change that nobody can set.
        age_s = self._clock.now().timestamp() - facts.st_ctime_ns / 1e9
        if nodes > MOST_NODES or age_s < GRAIN_S or os.name == "nt":
            return
        with self._lock:
            self._found[known_by(facts)] = found
            while len(self._found) > MOST_KEPT:
                del self._found[next(iter(self._found))]


def known_by(facts: os.stat_result) -> tuple[int, ...]:
    """What tells a file, as it is, from every other one."""
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


RECENT = Recent(SystemClock())


def read_structure(path: str | os.PathLike[str], *, recent: Recent = RECENT) -> Structure:
    """Read what `path` holds, down to the shape of every tensor, in milliseconds; nobody may change its tree.

    A file that is among the `recent` ones, and is as it was then, is not taken apart again.
    """
    path = Path(path)
    with open_checkpoint(path) as file:
        return structure_in(file, path, recent=recent)


def open_checkpoint(path: Path) -> BufferedReader:
    """Open what may be a checkpoint, of a folder its head.

    UsageError where nothing is there, DamagedFile for what cannot be read.
    """
    _require_file(path)
    try:
        return open_ordinary(head_of(path) if is_sharded(path) else path)
    except OSError as error:
        raise _unreadable(path, error) from error


def structure_in(file: BinaryIO, path: Path, *, recent: Recent = RECENT) -> Structure:
    """The same as `read_structure`, of a file that is open: what is read of it next is read of the same file."""
    try:
        facts = os.fstat(file.fileno())
        if (known := recent.get(facts)) is not None:
            return replace(known, path=path)
        file.seek(0)
        contents = _read_contents(file, path, facts.st_size)
    except OSError as error:
        raise _unreadable(path, error) from error
    nodes = _check_tree(contents, path)
    if is_sharded(path):
        contents = replace(contents, tree=with_references(contents.tree))
    structure = Structure(
        path=path,
        size_bytes=size_of(path) if is_sharded(path) else facts.st_size,
        has_optimizer=has_optimizer(contents.tree),
        **vars(contents),
        **vars(recognise(contents.tree)),
    )
    recent.keep(facts, structure, nodes=nodes)
    return structure


def tensors(structure: Structure) -> Iterator[tuple[str, TensorRef]]:
    """Yield every tensor with its dotted name, in the order of the file."""
    for path, node in walk(structure.tree):
        if isinstance(node, TensorRef):
            yield ".".join(path), node


def weights(structure: Structure) -> dict[str, TensorRef]:
    """Return the tensors of the model by parameter name; empty when the file has no model."""
    part = model_part(structure.tree) or {}
    return {name: ref for name, ref in part.items() if isinstance(name, str) and isinstance(ref, TensorRef)}


class StorageReader:
    """A checkpoint held open, to read its storages one by one, each checked against its checksum.

    Where its bytes were `verified` they are taken from there.
    """

    def __init__(self, structure: Structure, verified: memoryview | None = None) -> None:
        self._structure, self._verified = structure, verified
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            path = self._structure.path
            self._file = open_ordinary(head_of(path) if is_sharded(path) else path)
        except OSError as error:
            raise _unreadable(self._structure.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def storage(self, key: str) -> bytearray | memoryview:
        """Return all bytes of one storage in this machine's byte order, writable; of a file that is not kept in memory
        they are the caller's own.
        """
        if self._file is None:
            raise ValueError("a StorageReader is used inside `with`")
        ref, spot = self._structure.storages[key], self._structure.spots[key]
        if self._verified is not None and spot.deflated_bytes is None and self._structure.byteorder == sys.byteorder:
            return bytes_in(self._verified, spot, where=self._structure.path)
        try:
            data = read_spot(self._file, spot, where=self._structure.path)
        except OSError as error:
            raise _unreadable(self._structure.path, error) from error
        return in_native_order(data, byteorder=self._structure.byteorder, item_bytes=ref.number_bytes)


def has_known_head(path: Path) -> bool:
    """Whether a file begins as one of the formats that are read here, whole or not."""
    try:
        with open_ordinary(path) as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return head.startswith((b"PK", *FIRST_BYTES)) or looks_like_safetensors(head)


def _unreadable(path: Path, error: OSError) -> DamagedFile:
    return DamagedFile(path, f"the file cannot be read ({error.strerror or error})")


def _require_file(path: Path) -> None:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        require_local(path)
        raise UsageError(path, "there is no such file", do=_near(path)) from error
    except (OSError, ValueError) as error:
        raise UsageError(path, f"the path cannot be used ({error})") from error
    if is_cut_off(path):
        raise DamagedFile(path, "the folder has no head: the save was cut off", do="Take an older checkpoint.")
    if is_sharded(path):
        return
    if stat.S_ISDIR(facts.st_mode):
        raise DamagedFile(path, "this is a directory, not a checkpoint", do=_near(path / "x"))
    if not stat.S_ISREG(facts.st_mode):
        raise DamagedFile(path, "this is not an ordinary file")


def _near(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"The folder {path.parent} is not there either."
    from difflib import get_close_matches

    like = get_close_matches(path.name, names, n=3, cutoff=0.5)
    shown = like or [name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".safetensors"))][-3:]
    return f"In that folder: {', '.join(shown)}." if shown else "That folder has no checkpoint."


def _read_contents(file: BinaryIO, path: Path, size_bytes: int) -> Contents:
    head = file.read(HEAD_BYTES)
    if not head:
        raise DamagedFile(path, "the file is empty", do="The save was cut off: take an older checkpoint.")
    if head.startswith(b"PK"):
        return read_archive(file, path)
    if looks_like_safetensors(head):
        return read_safetensors(file, path, size_bytes)
    if head.startswith(FIRST_BYTES):
        return read_legacy(file, path, size_bytes)
    for start, what in NOT_DOWNLOADED.items():
        if head.startswith(start):
            raise DamagedFile(path, f"this is {what}, not a checkpoint")
    for pattern, what in FOREIGN_HEADS.items():
        if re.match(pattern, head, re.DOTALL):
            do = how_to_unpack(path) if what in PACKED else ""
            raise ForeignFile(path, f"not a training state, because this is {what}, not a checkpoint", do=do)
    if path.suffix.lower() in TEXTS and b"\0" not in head:
        raise ForeignFile(path, f"not a training state, because this is a text file ({path.suffix}), not a checkpoint")
    if not any(head):
        raise DamagedFile(path, "the file begins with zeros: its content never reached the disk")
    raise DamagedFile(path, "this is not a checkpoint", expected="a file written by torch.save", found=repr(head[:8]))


def _check_tree(contents: Contents, path: Path) -> int:
    """See to it that nobody after us meets a tree without end, or tensors that the file's bytes cannot account for.

    Returns how many nodes the tree has.
    """
    try:
        measure = check_tree(contents.tree)
    except Endless as error:
        raise DamagedFile(path, f"{error}, as no checkpoint is") from error
    claimed = measure.tensor_bytes
    stored = sum(spot.size_bytes for spot in contents.spots.values())
    if claimed > max(MOST_UNFOLDED * stored, SMALL_BYTES):
        refs = ((".".join(name), leaf) for name, leaf in walk(contents.tree) if isinstance(leaf, TensorRef))
        name, ref = max(refs, key=lambda item: item[1].size_bytes)
        raise DamagedFile(
            path,
            f"its tensors unfold into {claimed:,} bytes, the largest is {printable(name[:80])} {list(ref.shape)}",
            expected=f"about the {stored:,} bytes that are stored",
            do="A tensor that was expanded is saved whole with tensor.clone().",
        )
    return measure.nodes
