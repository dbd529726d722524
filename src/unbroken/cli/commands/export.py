"""`export`: a checkpoint of sharded training as one ordinary file."""

from __future__ import annotations

import argparse
from itertools import takewhile
from pathlib import Path

from unbroken.checkpoint.sharded import SUFFIX, is_sharded
from unbroken.cli.args import CommandParser
from unbroken.cli.runs import manifests_for, require_there, run_folder, run_named
from unbroken.errors import DamagedFile, UsageError
from unbroken.quantities import size_text
from unbroken.run.candidates import look_at
from unbroken.run.record import layout_of
from unbroken.run.survey import survey
from unbroken.text import shown


def export_options(parser: CommandParser) -> None:
    """A run or a checkpoint, and the file to write."""
    parser.add_argument("source", type=run_named, metavar="RUN|CHECKPOINT", help="a run, or a folder of shards in it")
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="the file to write; without it one of its name here: iter_8.pth"
    )
    parser.add_examples("unbroken export RUN", "unbroken export RUN/iter_8.dcp --to step8.pth")


def export_command(options: argparse.Namespace) -> None:
    """Write a checkpoint of sharded training, which is a folder, as one ordinary .pth file; of a run the furthest.

    `torch.load(weights_only=True)` opens it, and training goes on from it with one process or many. Every byte of the
    folder is verified first, nothing is replaced. It needs torch, and room in memory for the whole state.
    """
    source = options.source
    require_there(source)
    checkpoint = source if is_sharded(source) or source.is_file() else _furthest(source)
    if not is_sharded(checkpoint):
        raise UsageError(checkpoint, "this is one file already", expected=f"a folder called *{SUFFIX}")
    target = options.to or Path(checkpoint.name).with_suffix(".pth")
    if target.exists():
        raise UsageError(target, "this is there already", do="Name another file: --to FILE.")
    seen = look_at(checkpoint, manifests_for(checkpoint))
    if seen.state != "good":
        raise DamagedFile(checkpoint, seen.reason, do="Name another checkpoint.")
    from unbroken.train.distributed.export import export_checkpoint

    size_bytes = export_checkpoint(checkpoint, target)
    print(shown(f"{target}: step {seen.step} of {checkpoint}, {size_text(size_bytes)}, read back", 2000))


def _furthest(run: Path) -> Path:
    """The furthest checkpoint of a run that is whole; those further that are not are named."""
    facts = survey(run_folder(run), layout_of(run))
    for each in takewhile(lambda each: each is not facts.newest_good, facts.candidates):
        if each.resumable and each.state == "damaged":
            print(shown(f"not used: {each.path}: {each.reason}", 2000))
    if facts.newest_good is None:
        raise DamagedFile(run, "no checkpoint here is whole", do=f"See `unbroken verify {run}`.")
    return facts.newest_good.path
