"""`pack` and `unpack`: a run as one file that survives the way to another machine."""

from __future__ import annotations

from pathlib import Path

from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock
from unbroken.errors import UsageError
from unbroken.keep.pack import WORDS, LeftOut, Packed, by_need, pack
from unbroken.keep.unpack import unpack
from unbroken.quantities import asked, size_bytes, size_text
from unbroken.storage import Disk

MOST_NAMED = 8


def pack_command(run: Path, out: Path, *, minimal: bool, max_size: str | None, as_json: bool) -> None:
    """Pack a run, and say what is in the file and what is not."""
    if not run.is_dir():
        raise UsageError(run, "there is no such folder", expected="the folder of a run", do="See `unbroken ls ROOT`.")
    most_bytes = None if max_size is None else asked("--max-size", size_bytes, max_size)
    done = pack(run, out, minimal=minimal, most_bytes=most_bytes, disk=Disk(), clock=SystemClock())
    if as_json:
        print(as_json_text(_as_data(done)))
        return
    listed = done.listed
    print(f"{done.path}: {listed.tag or listed.folder} at step {listed.step}, {len(listed.files)} files")
    print(f"  {size_text(done.size_bytes)}, every byte read back")
    rows = [(WORDS[need], str(count), size_text(size)) for need, (count, size) in by_need(done.parcel.taken).items()]
    print(columns([("  packed", "files", "size"), *((f"  {words}", *others) for words, *others in rows)]))
    for line in _left_out_in_words(done.parcel.left_out):
        print(f"  left out: {line}")
    print(f"to unpack it: unbroken unpack {done.path.name}")


def _left_out_in_words(left_out: tuple[LeftOut, ...]) -> list[str]:
    """One line for each kind and reason; the few are named."""
    groups: dict[tuple[str, str], list[LeftOut]] = {}
    for item in left_out:
        groups.setdefault((WORDS[item.item.need], item.reason), []).append(item)
    lines = []
    for (words, reason), items in groups.items():
        size = size_text(sum(one.item.size_bytes for one in items))
        if len(items) <= MOST_NAMED:
            words = ", ".join(one.item.name for one in items)
        lines.append(f"{words} ({len(items)} files, {size}) - {reason}" if len(items) > 1 else f"{words} - {reason}")
    return lines


def _as_data(done: Packed) -> dict[str, object]:
    return {
        "file": str(done.path),
        "size_bytes": done.size_bytes,
        "run": done.listed.run,
        "tag": done.listed.tag,
        "step": done.listed.step,
        "packed": [{"file": item.name, "size_bytes": item.size_bytes} for item in done.listed.files],
        "left_out": [
            {"file": one.item.name, "size_bytes": one.item.size_bytes, "reason": one.reason}
            for one in done.parcel.left_out
        ],
    }


def unpack_command(file: Path, folder: Path | None, *, as_json: bool) -> None:
    """Unpack a run, and say where it stands and how it goes on."""
    done = unpack(file, folder, disk=Disk(), clock=SystemClock())
    newest = done.facts.newest_good
    if as_json:
        data = {"run": done.listed.run, "tag": done.listed.tag, "folder": str(done.directory)}
        print(as_json_text({**data, "step": newest.step if newest else None, "files": len(done.listed.files)}))
        return
    files = f"{len(done.listed.files)} files" + (f", {done.kept} of them were there already" if done.kept else "")
    print(f"{done.directory}: {done.listed.tag or done.listed.folder}, {files}, each compared with the packing list")
    if newest is not None:
        print(f"  goes on after step {newest.step} ({newest.name}, {newest.reason})")
    if command := next((str(e.get("command")) for e in reversed(done.facts.events) if e.get("command")), ""):
        print(f"  it was trained with: {command}")
