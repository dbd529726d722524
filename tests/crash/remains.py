"""What a kill or a power cut may leave of a folder: every state that the requests up to an instant allow.

A small model of a file system, in memory: folders are names that point to files; a file's bytes and a folder's names
are on the medium once they were synced. A rename is indivisible, also between two folders, and on the medium once
either of them was synced. A *kill* leaves everything that was asked for. A *power cut* may undo, in each folder by
itself, what was done to its names since it was synced, and may leave of a file's unsynced bytes nothing, or zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.faulty_disk import Request
from unbroken.storage.lock import LOCK_FILES


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(eq=False)
class File:
    """Bytes as the operating system has them, and as the medium has them."""

    content: bytes = b""
    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    """Names as the operating system has them, and as the medium has them."""

    names: dict[str, Node] = field(default_factory=dict)
    synced: dict[str, Node] = field(default_factory=dict)


Node = File | Folder | Link
Image = Mapping[str, bytes | Link | None]  # path from the root -> content; None is a folder


class Medium:
    """The file system below one root, changed by one request after the other."""

    def __init__(self, root: Path, image: Image) -> None:
        self.root, self.top = root, Folder()
        self._files: dict[int, File] = {}
        self._moved: list[tuple[Folder, str, Folder, str, Node]] = []  # between two folders, on the medium in neither
        for path, content in image.items():
            folder = self._folder(root / path, make=True)
            node = Folder() if content is None else content if isinstance(content, Link) else File(content, content)
            folder.names.setdefault(Path(path).name, node)
        self._settle(self.top)

    def apply(self, request: Request) -> None:
        """Change what the request changes."""
        name = request.path.name
        match request.kind:
            case "create" | "open_append":
                file = self._folder(request.path).names.setdefault(name, File())
                assert isinstance(file, File)
                if request.kind == "create":
                    file.content = b""
                self._files[request.file] = file
            case "write":
                self._files[request.file].content += request.data
            case "sync":
                self._files[request.file].synced = self._files[request.file].content
            case "rename" | "move":
                self._rename(request.path, Path(request.target))
            case "sync_folder":
                self._sync_folder(self._at(request.path))
            case "make_folder":
                self._folder(request.path / "x", make=True)
            case "remove" | "remove_folder":
                names = self._folder(request.path).names
                names.pop(name, None) if name in LOCK_FILES else names.pop(name)  # no request of ours makes a lock
            case "link":
                self._folder(request.path).names[name] = Link(str(request.target))
            case _:
                assert request.kind == "close"

    def now(self) -> Image:
        """What a kill leaves at this instant."""
        return dict(self._walk(self.top, lost=frozenset(), data="kept"))

    def torn(self, request: Request) -> Image:
        """What a kill in the middle of this write leaves."""
        file = self._files[request.file]
        before = file.content
        file.content = before + request.data[: len(request.data) // 2]
        image = self.now()
        file.content = before
        return image

    def after_power_cut(self) -> Iterator[tuple[str, Image]]:
        """What a power cut may leave at this instant, each with a name."""
        pending = [folder for folder in self._folders(self.top) if folder.names != folder.synced]
        every = frozenset(map(id, pending))
        choices = {"no names lost": frozenset[int](), "all unsynced names lost": every}
        if len(pending) > 1:
            choices |= {f"names of folder {n} lost": self._tied_to(one) for n, one in enumerate(pending)}
        for words, lost in choices.items():
            for data in ("kept", "cut", "zeroed"):
                yield f"power cut, {words}, unsynced bytes {data}", dict(self._walk(self.top, lost=lost, data=data))

    def _tied_to(self, folder: Folder) -> frozenset[int]:
        """A folder, and those with which it shares a move that is not on the medium yet."""
        tied = {id(folder)}
        for _ in self._moved:
            for old, _, new, _, _ in self._moved:
                if id(old) in tied or id(new) in tied:
                    tied |= {id(old), id(new)}
        return frozenset(tied)

    def _rename(self, source: Path, target: Path) -> None:
        old, new = self._folder(source), self._folder(target)
        node = old.names.pop(source.name)
        new.names[target.name] = node
        if old is not new:
            self._moved.append((old, source.name, new, target.name, node))

    def _sync_folder(self, folder: Folder) -> None:
        folder.synced = dict(folder.names)
        for move in [item for item in self._moved if folder in (item[0], item[2])]:
            old, old_name, new, new_name, node = move
            if old.synced.get(old_name) is node:
                del old.synced[old_name]
            if new.names.get(new_name) is node:
                new.synced[new_name] = node
            self._moved.remove(move)

    def _walk(
        self, folder: Folder, *, lost: frozenset[int], data: str, prefix: str = ""
    ) -> Iterator[tuple[str, bytes | Link | None]]:
        names = folder.synced if id(folder) in lost else folder.names
        for name, node in sorted(names.items()):
            match node:
                case Folder():
                    yield prefix + name, None
                    yield from self._walk(node, lost=lost, data=data, prefix=f"{prefix}{name}/")
                case File():
                    yield prefix + name, _bytes_left(node, data)
                case Link():
                    yield prefix + name, node

    def _folders(self, folder: Folder) -> Iterator[Folder]:
        yield folder
        for node in folder.names.values():
            if isinstance(node, Folder):
                yield from self._folders(node)

    def _folder(self, path: Path, *, make: bool = False) -> Folder:
        """The folder that the last name of `path` is in."""
        folder = self.top
        for part in path.relative_to(self.root).parts[:-1]:
            inner = folder.names.setdefault(part, Folder()) if make else folder.names[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder

    def _at(self, path: Path) -> Folder:
        return self._folder(path / "x")

    def _settle(self, folder: Folder) -> None:
        for inner in self._folders(folder):
            inner.synced = dict(inner.names)


def _bytes_left(file: File, data: str) -> bytes:
    match data:
        case "cut":
            return file.synced
        case "zeroed":
            return file.synced + bytes(max(0, len(file.content) - len(file.synced)))
        case _:
            return file.content


def look(root: Path) -> Image:
    """The image of a real folder."""
    image: dict[str, bytes | Link | None] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            image[name] = Link(str(path.readlink()))
        else:
            image[name] = path.read_bytes() if path.is_file() else None
    return image


def lay_out(image: Image, root: Path) -> None:
    """Make an empty real folder what the image says."""
    change({}, image, root)


def change(there: Image, wanted: Image, root: Path) -> Image:
    """Make a real folder that is as `there` says what `wanted` says; returns that."""
    root.mkdir(parents=True, exist_ok=True)
    for name in sorted(there, reverse=True):  # what is in a folder comes before the folder
        path = root / name
        if name in wanted and wanted[name] == there[name]:
            continue
        if there[name] is None:
            path.rmdir()
        else:
            path.unlink()
    for name, content in wanted.items():
        path = root / name
        if name in there and there[name] == content:
            continue
        if content is None:
            path.mkdir()
        elif isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)
    return wanted
