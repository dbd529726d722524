"""The few names that make a run, apart from its layout: who only looks for runs loads no more than these."""

from __future__ import annotations

OWN_FOLDER = "unbroken"  # not hidden: notebook hosts drop dot files
ARCHIVE_FOLDER = "archive"
CHECKPOINT_FOLDER = "ckpt"  # where a layout by epochs has its checkpoints
BACKUP_LIST = "backup.json"  # in the own folder of a backup: what it held when it was copied
