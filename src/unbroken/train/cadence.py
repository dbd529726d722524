"""When to log, validate, save: pure functions of the step, so that a resumed run does them at the same steps."""

from __future__ import annotations


def due(step: int, *, every: int | None, total: int | None) -> bool:
    """Whether something done every `every` steps, and once at the end, is due after `step`."""
    if step <= 0:
        return False
    return step == total or (every is not None and every > 0 and step % every == 0)


def last_due(step: int, *, every: int | None, total: int | None) -> int:
    """The latest step up to `step` after which it was due; 0 when it never was."""
    if total is not None and step >= total:
        return total
    return step - step % every if every else 0
