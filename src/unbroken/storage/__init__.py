"""Files that survive.

*Disk* is the only code of the project that changes the disk; it has one method per thing the operating system can be
asked for, so that a test can interrupt each of them. *Durable* means: after the call returns, a power cut or a SIGKILL
leaves either the old content or the new content under the name, never a mixture. A *partial* is the temporary file of
a durable write (`<name>.partial`); one that is found at a launch is what an interrupted write left behind.
A file is *ordinary* when it is neither a folder nor a pipe, a socket or a device: nothing else that a person or a
record names is read. A *record* is one JSON file with a typed value; a *damaged* one does not hold what it should, and
its readers take it for one that is not there. The *lock* of a run is held by exactly one live process; the *holder* is
who that is.

Touches files, terminal (that nobody reads any more: it is turned away) and processes (whether the owner of a lock
lives).
"""

from unbroken.storage.cache import Cache, loaded_code
from unbroken.storage.durable import (
    PARTIAL_SUFFIX,
    NotTaken,
    durable_folder,
    durable_write,
    explained,
    point_to,
    refusal,
    write_json,
    write_whole,
)
from unbroken.storage.files import Disk, WritableFile
from unbroken.storage.ordinary import (
    NotOrdinary,
    is_ordinary,
    is_remote,
    open_ordinary,
    read_json,
    read_typed,
    read_whole,
    require_local,
)

__all__ = [
    "PARTIAL_SUFFIX",
    "Cache",
    "Disk",
    "NotOrdinary",
    "NotTaken",
    "WritableFile",
    "durable_folder",
    "durable_write",
    "explained",
    "is_ordinary",
    "is_remote",
    "loaded_code",
    "open_ordinary",
    "point_to",
    "read_json",
    "read_typed",
    "read_whole",
    "refusal",
    "require_local",
    "write_json",
    "write_whole",
]
