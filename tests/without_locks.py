"""A world without flock: the kernel itself answers each call with an error of choice, or grants every lock to all.

A filter of system calls is put on a process before it becomes another program; its children keep it.
"""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Callable

NUMBERS = {"x86_64": 73, "aarch64": 32}  # of the system call flock
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
LOAD_NUMBER, EQUAL, RETURN = 0x20, 0x15, 0x06
ANSWER, ALLOW = 0x00050000, 0x7FFF0000
LIES = 0  # every lock is granted


def flock_answers(errno: int) -> Callable[[], None]:
    """For `preexec_fn`: what makes flock fail with `errno` from then on, or with LIES do nothing and succeed."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = (
        struct.pack("HBBI", LOAD_NUMBER, 0, 0, 0)
        + struct.pack("HBBI", EQUAL, 0, 1, NUMBERS[platform.machine()])
        + struct.pack("HBBI", RETURN, 0, 0, ANSWER | errno)
        + struct.pack("HBBI", RETURN, 0, 0, ALLOW)
    )
    buffer = ctypes.create_string_buffer(steps)
    program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))

    def install() -> None:
        done = libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(SECCOMP, FILTER, program, 0, 0)
        if done:
            raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
        assert buffer

    return install
