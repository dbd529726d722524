"""Addresses of the web and of object stores where a file is asked for: only what lies on this machine is read."""

from __future__ import annotations

import re
from pathlib import Path

from unbroken.errors import UsageError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # a path has one slash left of two; one letter is a drive
FETCH = {
    "http": "wget {0}",
    "https": "wget {0}",
    "ftp": "wget {0}",
    "s3": "aws s3 cp {0} .",
    "gs": "gcloud storage cp {0} .",
    "gcs": "gcloud storage cp {0} .",
    "hf": "hf download REPOSITORY FILE",
}


def is_remote(named: object) -> bool:
    """Whether a name is an address, such as `https://...`, `s3://...` or `open-mmlab://...`, and no path."""
    return SCHEME.match(str(named)) is not None


def require_local(named: object, *, is_folder: bool = False) -> None:
    """Raise UsageError for an address, with how to get what it stands for."""
    found = SCHEME.match(str(named))
    if found is None or Path(str(named)).exists():
        return
    scheme = found[1].lower()
    address = f"{found[1]}://{str(named)[found.end() :]}"
    what = "folder" if is_folder else "file"
    command = f"with `{FETCH[scheme].format(address)}` " if scheme in FETCH else ""
    mount = " or mount it" if is_folder else ""
    raise UsageError(
        address,
        "this is an address, and only what lies on this machine is read or written",
        do=f"Fetch it {command}first{mount}, and name the {what} here.",
    )
