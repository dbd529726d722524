"""Variables that a loop carries from one turn to the next, found in the bytecode of its function.

The body of the loop sets them and may read them before, as a compiler finds it (live-variable analysis: Aho, Lam,
Sethi, Ullman, Compilers, 9.2.5).
"""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator
from types import FrameType

ACCESS = re.compile("(LOAD|STORE)_(?:FAST|NAME|DEREF|GLOBAL)")
NO_NEXT = re.compile("RETURN|RAISE|RERAISE|JUMP_(?:FORWARD|BACKWARD|ABSOLUTE)")


def carried(frame: FrameType) -> list[str]:
    """The variables that the loops around the frame's present instruction carry, in alphabetical order."""
    code = [*dis.get_instructions(frame.f_code)]
    return sorted({name for loop in _loops_around(code, frame.f_lasti) for name in _carried_by(loop)})


def set_anew(frame: FrameType) -> set[str]:
    """The variables that the loops around the frame's present instruction set."""
    loops = _loops_around([*dis.get_instructions(frame.f_code)], frame.f_lasti)
    return {name for loop in loops for each in loop for kind, name in _accesses(each) if kind == "STORE"}


def _loops_around(code: list[dis.Instruction], at: int) -> Iterator[list[dis.Instruction]]:
    """The instructions of each loop: from the target of a jump back to that jump, or to the last one to there."""
    last: dict[int, int] = {}
    for each in code:
        target = _target(each)
        if target is not None and target <= each.offset:
            last[target] = each.offset
    for first, end in last.items():
        if first <= at <= end:
            yield [each for each in code if first <= each.offset <= end]


def _carried_by(loop: list[dis.Instruction]) -> set[str]:
    live: list[set[str]] = [set() for _ in loop]  # ahead of each instruction, until the loop's next turn
    place = {each.offset: number for number, each in enumerate(loop)}
    changed = True
    while changed:
        changed = False
        for number in range(len(loop) - 1, -1, -1):
            found = set().union(*(live[after] for after in _after(loop, place, number)))
            for kind, name in reversed(_accesses(loop[number])):
                found = found | {name} if kind == "LOAD" else found - {name}
            changed |= found != live[number]
            live[number] = found
    return live[0] & {name for each in loop for kind, name in _accesses(each) if kind == "STORE"}


def _after(loop: list[dis.Instruction], place: dict[int, int], number: int) -> Iterator[int]:
    """What may come next in this turn of the loop; an inner loop over a range is left only after its first turn."""
    each = loop[number]
    if NO_NEXT.match(each.opname) is None and number + 1 < len(loop):
        yield number + 1
    target = _target(each)
    to = place.get(target, 0) if target is not None else 0  # 0: this turn is over
    if to > 0 and not _goes_over_range(loop, number):
        yield to
    if 0 < to < number and _goes_over_range(loop, to) and (left := place.get(loop[to].argval, 0)) > 0:
        yield left


def _goes_over_range(loop: list[dis.Instruction], number: int) -> bool:
    """Whether here begins each turn of `for ... in range(...)`: what such a loop sets is set after it."""
    if number == 0 or loop[number].opname != "FOR_ITER":
        return False
    first = max(at for at in range(number) if loop[at].starts_line or at == 0)
    return bool(next(each.argval for each in loop[first:] if each.opname != "PUSH_NULL") == "range")


def _target(each: dis.Instruction) -> int | None:
    return each.argval if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs else None


def _accesses(each: dis.Instruction) -> list[tuple[str, str]]:
    """Which variables an instruction reads and sets, in its order; newer interpreters join two in one."""
    kinds = ACCESS.findall(each.opname)
    names = each.argval if isinstance(each.argval, tuple) else (each.argval,)
    return list(zip(kinds, names)) if "_AND_CLEAR" not in each.opname else []
