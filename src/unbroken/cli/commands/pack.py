"""`pack` and `unpack`: a run as one file that survives the way to another machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import add_run
from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock
from unbroken.errors import UsageError
from unbroken.keep.pack import WORDS, LeftOut, Packed, by_need, pack
from unbroken.keep.unpack import unpack
from unbroken.quantities import asked, size_bytes, size_text
from unbroken.storage import Disk

MOST_NAMED = 8


def pack_options(parser: CommandParser) -> None:
    """A run, the file, and how much of the run it takes."""
    add_run(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write, or a folder for it")
    parser.add_argument(
        "--minimal",
        action="store_true",
        help="only what is needed to go on: newest checkpoint, best weights, records",
    )
    parser.add_argument("--max-size", metavar="SIZE", help="leave out what is least needed until it fits (20GB, 500MB)")
    add_json(parser)
    parser.add_examples("unbroken pack RUN run.zip --max-size 20GB", "unbroken unpack run.zip")


def pack_command(options: argparse.Namespace) -> None:
    """Write a run into one file (a zip) and read it back; checkpoints are verified before they go in.

    The archive stays behind. For want of room, older checkpoints do first, then pictures and results, then logs. A run
    that is being trained may be packed: it is only read.
    """
    run, out, max_size = options.run, options.out, options.max_size
    if not run.is_dir():
        raise UsageError(run, "there is no such folder", expected="the folder of a run", do="See `unbroken ls ROOT`.")
    most_bytes = None if max_size is None else asked("--max-size", size_bytes, max_size)
    done = pack(run, out, minimal=options.minimal, most_bytes=most_bytes, disk=Disk(), clock=SystemClock())
    if options.as_json:
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


def unpack_options(parser: CommandParser) -> None:
    """The file, and the folder it becomes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what `unbroken pack` wrote")
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a new folder (default: the run's name)")
    add_json(parser)
    parser.add_examples("unbroken unpack run.zip")


def unpack_command(options: argparse.Namespace) -> None:
    """Make the run in a file a folder again; every byte is compared, and nothing that is there is overwritten.

    Killed anywhere, the same command goes on, and nothing half is taken for a run.
    """
    done = unpack(options.file, options.folder, disk=Disk(), clock=SystemClock())
    newest = done.facts.newest_good
    if options.as_json:
        data = {"run": done.listed.run, "tag": done.listed.tag, "folder": str(done.directory)}
        print(as_json_text({**data, "step": newest.step if newest else None, "files": len(done.listed.files)}))
        return
    files = f"{len(done.listed.files)} files" + (f", {done.kept} of them were there already" if done.kept else "")
    print(f"{done.directory}: {done.listed.tag or done.listed.folder}, {files}, each compared with the packing list")
    if newest is not None:
        print(f"  goes on after step {newest.step} ({newest.name}, {newest.reason})")
    if command := next((str(e.get("command")) for e in reversed(done.facts.events) if e.get("command")), ""):
        print(f"  it was trained with: {command}")
