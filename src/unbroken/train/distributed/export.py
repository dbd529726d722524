"""A checkpoint of sharded training as one ordinary file, which training of one process, and any tool, goes on from."""

from __future__ import annotations

from pathlib import Path

from unbroken.checkpoint.kinds import STAMP
from unbroken.checkpoint.structure import read_structure
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import DamagedFile
from unbroken.storage import Disk, durable_folder, durable_write, explained
from unbroken.train.state.serialise import load_tree, write_tree

OF_SHARDS = ("shard_files", "chunks")  # what a head says that is of no use to one file


def export_checkpoint(checkpoint: Path, target: Path, *, disk: Disk | None = None) -> int:
    """Write a verified checkpoint as one file, durably, and look at what was written.

    Args:
        checkpoint: A folder of shards.
        target: The file; what has its name is replaced.
        disk: What changes the disk; None: the real one.
    Returns:
        Its size in bytes.
    Raises:
        DamagedFile: The checkpoint cannot be read, or the disk does not give back what was written.
        Refused: The disk refuses.
    """
    disk, tree = disk or Disk(), dict(load_tree(read_structure(checkpoint)))
    tree[STAMP] = {key: value for key, value in tree[STAMP].items() if key not in OF_SHARDS}

    def check(partial: Path) -> None:
        if (verdict := verify_file(partial)).state != "good":
            raise DamagedFile(target, f"what was written does not read back: {verdict.reason}")

    with explained(disk, target, "the checkpoint could not be exported"):
        durable_folder(disk, target.parent)
        durable_write(disk, target, lambda file: write_tree(file, tree), check=check)
    return target.stat().st_size
