"""What can be said about a run from its records alone: no torch, no training code, nothing is changed.

The *final history* of a run is, for each step, the record that the surviving line of checkpoints continued from: the
last session goes on from a file, the session that wrote this file did so from another, and so on to the beginning.
What a session did beyond the file that was continued from is *lost*; a step that was lost and done again is
*repeated*, and must have come out the same. An *audit* proves that in the final history each step was done once and
each sample used once per epoch, or names what is wrong: each a *finding*. A *run status* is what a run is doing now; a
*watch* takes one after the other.

Touches files (a cache of listings, outside of runs) and processes (helpers that read in parallel).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbroken.report.audit import Audit
    from unbroken.report.findings import Finding
    from unbroken.report.status import RunStatus, Watch
else:
    _LOADED_ON_FIRST_USE = {"Audit": "audit", "Finding": "findings", "RunStatus": "status", "Watch": "status"}

    def __getattr__(name: str) -> object:
        """Load a name when it is first asked for."""
        if name not in _LOADED_ON_FIRST_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LOADED_ON_FIRST_USE[name]}"), name)


__all__ = ["Audit", "Finding", "RunStatus", "Watch"]
