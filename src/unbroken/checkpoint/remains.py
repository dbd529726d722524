"""What a file of ours says of itself even when its end is missing: `torch.save` puts the pickle first."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unbroken.checkpoint.kinds import STAMP
from unbroken.checkpoint.unpickle import read_pickle
from unbroken.errors import DamagedFile
from unbroken.storage import open_ordinary

ENTRY_HEAD = struct.Struct("<4sHHHHHIIIHH")  # signature .. name length, extra length: APPNOTE.TXT of zip, 4.3.7
ENTRY_SIGNATURE = b"PK\x03\x04"
STORED = 0


def read_stamp(path: Path) -> Mapping[str, Any]:
    """The `unbroken` entry of a checkpoint, whole or cut off; empty for files of others, and where it is gone."""
    try:
        with open_ordinary(path) as file:
            head = file.read(ENTRY_HEAD.size)
            if len(head) < ENTRY_HEAD.size or not head.startswith(ENTRY_SIGNATURE):
                return {}
            _, _, _, method, *_, name_bytes, extra_bytes = ENTRY_HEAD.unpack(head)
            if method != STORED or not file.read(name_bytes).endswith(b"/data.pkl"):
                return {}
            file.seek(extra_bytes, 1)
            tree = read_pickle(file, where=path).value
    except (OSError, DamagedFile):
        return {}
    stamp = tree.get(STAMP) if isinstance(tree, dict) else None
    return stamp if isinstance(stamp, dict) else {}
