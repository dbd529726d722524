"""`pin`: files of a run that stay whatever the policy says."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from unbroken.checkpoint.sharded import head_of
from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import add_run, run_folder
from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock, shown_time
from unbroken.errors import UsageError
from unbroken.quantities import some_of
from unbroken.run import Layout, layout_of
from unbroken.run.folder import checkpoint_files
from unbroken.run.record import Pin, pin, read_pins, require_there, unpin
from unbroken.storage import Disk, is_ordinary
from unbroken.text import shown

LONGEST_NOTE = 500


def pin_options(parser: CommandParser) -> None:
    """A run, and which of its files."""
    add_run(parser)
    parser.add_argument(
        "files", nargs="*", metavar="FILE|STEP...", help="files, or steps (epochs, where names have them)"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="why it is kept")
    parser.add_argument("--remove", action="store_true", help="let the policy decide about them again")
    add_json(parser)
    parser.add_examples("unbroken pin RUN 8000 --note 'figure 3'", "unbroken pin RUN 8000 --remove")


def pin_command(options: argparse.Namespace) -> None:
    """Keep checkpoints whatever the policy says: `prune` and a training that runs leave them alone from then on.

    Without FILE, list what is pinned.
    """
    run, words, note, remove = options.run, options.files, options.note, options.remove
    if not words and run.is_file():
        do = f"Name the run before it: unbroken pin RUN {run.name}"
        raise UsageError(run, "this is a file, and which run it is of comes first", do=do)
    run_folder(run)
    if len(note) > LONGEST_NOTE:
        raise UsageError("--note", "the note is too long", expected=f"{LONGEST_NOTE} characters", found=len(note))
    if not words and (note or remove):
        raise UsageError(f"unbroken pin {run}", "no file was named", do="Name a file or a step behind the run.")
    layout, pins = layout_of(run), read_pins(run)
    folder = layout.checkpoints(run)
    if remove:
        names = [_pinned(run, word, pins, layout) for word in words]
        unpin(run, names, disk=Disk(), clock=SystemClock())
    elif words:
        names = [_to_pin(run, word, layout) for word in words]
        pin(run, dict.fromkeys(names, note), disk=Disk(), clock=SystemClock())
        require_there(run, names)
    _say(run, folder, read_pins(run), as_json=options.as_json)


def _say(run: Path, folder: Path, pins: Mapping[str, Pin], *, as_json: bool) -> None:
    here = {name: is_ordinary(head_of(folder / name)) for name in pins}
    if as_json:
        rows = [{"file": name, "note": p.note, "time": p.time, "here": here[name]} for name, p in pins.items()]
        print(as_json_text({"run": str(run), "pins": rows}))
    elif not pins:
        print(f"nothing is pinned in {run}")
    else:
        rows_of_text = [
            (name, shown_time(p.time), p.note + ("" if here[name] else " (not here)")) for name, p in pins.items()
        ]
        print(columns([("pinned", "since", "note"), *rows_of_text]))


def _to_pin(run: Path, word: str, layout: Layout) -> str:
    """The name of the file that is meant: by itself, by its path, or by its step (its epoch, where names have that)."""
    folder = layout.checkpoints(run)
    name = _name(run, word, layout)
    path = folder / name
    if layout.pointer and name == layout.pointer and path.is_symlink():
        raise UsageError(
            path, "this is a link, which leads to the newest checkpoint", do=f"Pin {path.readlink().name} instead."
        )
    if not is_ordinary(head_of(path)):
        raise UsageError(
            path, "there is no such file", found=_near(run, folder, name), do=f"See `unbroken show {run}`."
        )
    if layout.part_of(name)[0] == "rolling":
        ends = layout.checkpoint_name.format(step="N", epoch="N")
        raise UsageError(
            path,
            "the next save of this training replaces this file, pinned or not",
            do=f"Pin the end of an epoch ({ends}), or copy this file to a name of your own: prune leaves that alone.",
        )
    return name


def _pinned(run: Path, word: str, pins: Mapping[str, Pin], layout: Layout) -> str:
    name = word if word in pins else _name(run, word, layout)
    if name not in pins:
        raise UsageError(run / word, "this is not pinned", found=", ".join(map(shown, pins)) or "no pins")
    return name


def _name(run: Path, word: str, layout: Layout) -> str:
    """The file name that was meant; a path has to lead into the folder of the checkpoints."""
    if word.isascii() and word.isdigit():
        number, folder = int(word[:30]), layout.checkpoints(run)
        names = [
            layout.checkpoint(step=number, epoch=number, milestone=True, sharded=sharded) for sharded in (False, True)
        ]
        return next((name for name in names if is_ordinary(head_of(folder / name))), names[0])
    path, folder = Path(word), layout.checkpoints(run)
    if path.name != word and path.parent.resolve() != folder.resolve():
        raise UsageError(word, "only checkpoints of the run itself can be pinned", expected=f"a file in {folder}")
    if not path.name or "\0" in word:
        raise UsageError(repr(word), "this is no file name", expected=f"a file in {folder}")
    return path.name


def _near(run: Path, folder: Path, name: str) -> str:
    names = [path.name for path in checkpoint_files(folder, run)]
    near = get_close_matches(name, names, n=3, cutoff=0.5) or names
    return some_of(list(map(shown, near)), 5) or "no checkpoints"
