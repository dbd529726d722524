"""How this process is started again: what to type, or what to do where nothing can be typed; what the last one left.

`sys.argv` alone does not say it: it lacks the interpreter's own options and the launcher, `-m package.module` has
become a path there, `-c` has lost its program, and in a notebook it is the kernel's.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unbroken.launch.host import ancestors, launcher_said
from unbroken.launch.job import Environment, Start

LONGEST_PROGRAM = 200  # characters of a program behind `-c` that is still written out
# Programs that stay above what they start; what replaces itself by it (`nice`, `env`) cannot be seen any more.
LAUNCHERS = {
    *("torchrun", "accelerate", "deepspeed", "colossalai", "horovodrun", "mpirun", "mpiexec", "srun"),
    *("uv", "uvx", "conda", "mamba", "micromamba", "pixi", "poetry", "pipenv", "pdm", "hatch", "rye"),
    *("xvfb-run", "timeout", "time", "flock", "strace", "ltrace", "gdb", "py-spy", "nsys", "ncu"),
}
LAUNCHER_MODULES = {
    *("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch", "deepspeed.launcher.runner"),
}
MULTIPROCESSING = "--multiprocessing-fork"  # what `spawn` writes behind its own program
SHELLS = {"sh", "bash", "dash", "zsh"}
Kind = Literal["script", "-m", "-c", "stdin"]


@dataclass(frozen=True, kw_only=True)
class Started:
    """How this process was started, and in what it runs."""

    argv: tuple[str, ...]  # as the program sees it
    words: Sequence[str]  # of the whole command line, the interpreter first
    above: Sequence[Sequence[str]] = ()  # the command lines of the processes above it, the nearest first
    shell: Literal["", "notebook", "ipython", "python"] = ""  # somebody types into it
    script: str = ""  # what is run in a notebook or in IPython, where it is a file
    said: str = ""  # what the environment says of a launcher: "torchrun", "Slurm"

    @property
    def is_program(self) -> bool:
        """Whether it is a file that runs, and no line that somebody types."""
        return self.argv[:1] not in ((), ("",)) and (not self.shell or bool(self.script))


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """`command` is what to type; `words` what to do where that is not a command, or not it alone."""

    command: str = ""
    words: str = ""


def this_process() -> Started:
    """How this process was started."""
    main = sys.modules.get("__main__")
    file = str(getattr(main, "__file__", None) or "")
    ipython = sys.modules.get("IPython")
    typed_into = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(typed_into, "kernel", None) is not None or "marimo" in sys.modules
    shell: Literal["", "notebook", "ipython", "python"] = "python" if hasattr(sys, "ps1") else ""
    if typed_into is not None or kernel:
        shell = "notebook" if kernel else "ipython"
    words = list(getattr(sys, "orig_argv", None) or [sys.executable, *sys.argv])
    if MULTIPROCESSING in words:  # a child that spawned: its parent's program runs in it again
        spec = getattr(sys.modules.get("__mp_main__"), "__spec__", None)
        module = str(spec.name) if spec is not None else ""
        words = [words[0], *(["-m", module, *sys.argv[1:]] if module else sys.argv)]
    own = file and _name(file) not in ("ipykernel_launcher.py", "colab_kernel_launcher.py", "ipython")
    return Started(
        argv=tuple(sys.argv),
        words=tuple(words),
        above=ancestors(),
        shell=shell,
        script=sys.argv[0] if own and shell in ("notebook", "ipython") else "",
        said=launcher_said(),
    )


def rerun_of(started: Started) -> Rerun:
    """What to type to start this again, or what to do."""
    if started.shell == "notebook" and not started.script:
        return Rerun(words="run the cells of this notebook again, in order")
    if started.shell and started.script:
        return Rerun(command=joined(["%run", started.script, *started.argv[1:]]))
    kind, program, _ = _program(started.words)
    interpreter = joined(_shortened(started.words)[:1])
    if kind == "stdin":
        if started.shell:
            name = "IPython" if started.shell == "ipython" else "Python"
            return Rerun(words=f"enter the same lines in {name} again")
        return Rerun(words=f"give {interpreter} the same program on its standard input again")
    if started.shell == "ipython" and _name(program).lower() == "ipython":
        return Rerun(words="enter the same lines in IPython again")
    if kind == "-c" and ("\n" in program or len(program) > LONGEST_PROGRAM):
        return Rerun(words=f"give {interpreter} -c the same program again")
    command = joined(_command(started))
    return Rerun(command=command, words=under_launcher(started, command))


def under_launcher(started: Started, command: str) -> str:
    """What to do where the command alone is not it; "" where it is."""
    if started.said == "Slurm":
        return f"submit the same job of Slurm again, or run: {command}"
    if started.said and not _launched(started):  # only the environment tells of it, so its command is not known
        return f"start it with {started.said} again, as before: {command}"
    return ""


def command_of(started: Started) -> list[str]:
    """The words of the command that started this, from the launcher on; [] where it was none that can be typed."""
    if started.shell or _program(started.words)[0] in ("stdin", "-c"):
        return []
    return _command(started)


def program_text(words: Sequence[str]) -> str:
    """The program that stands behind `-c` of a command line; "" where there is none."""
    kind, program, _ = _program(words)
    return program if kind == "-c" else ""


def typed_again(arguments: Sequence[str], *, otherwise: Sequence[str]) -> list[str]:
    """The whole command of this process, where it ends with these arguments; `otherwise` where nothing tells."""
    found, arguments = command_of(this_process()), list(arguments)
    return found if found and found[len(found) - len(arguments) :] == arguments else list(otherwise)


def joined(words: Sequence[str]) -> str:
    """Words as one line that a shell of this system takes apart into the same words."""
    if os.name == "nt":
        from subprocess import list2cmdline

        return list2cmdline(words)
    return shlex.join(words)


def again_in_words(environment: Environment, command: str) -> str:
    """`run: COMMAND`, or what else there is to do."""
    return environment.again or f"run: {command or 'the same command again'}"


def _command(started: Started) -> list[str]:
    return _shortened(_launched(started) or started.words)


def _launched(started: Started) -> Sequence[str]:
    """The command line of the outermost launcher (`uv run torchrun train.py`); empty where there is none."""
    _, program, place = _program(started.words)
    arguments = list(started.words[place + 1 :])
    found: Sequence[str] = ()
    for above in started.above:
        fits = _ends_with(above, program, arguments)
        if fits and is_launcher(above):
            found = above
        elif not fits and not _is_shell(above):
            break
    return found


def is_launcher(words: Sequence[str]) -> bool:
    """Whether a command line is that of a program which starts another one and waits for it."""
    if not words:
        return False
    if _name(words[0]) in LAUNCHERS:
        return True
    if _is_shell(words) or _is_python(words[0]):
        kind, program, _ = _program(words)
        return _name(program) in LAUNCHERS if kind == "script" else program in LAUNCHER_MODULES
    return False


def _ends_with(above: Sequence[str], program: str, arguments: Sequence[str]) -> bool:
    """Whether a command line ends with this program and these arguments."""
    place = len(above) - len(arguments) - 1
    return place > 0 and _name(above[place]) == _name(program) and list(above[place + 1 :]) == list(arguments)


def _program(words: Sequence[str]) -> tuple[Kind, str, int]:
    """What an interpreter was told to run: its kind, its name or text, and the place of that among the words."""
    place = 1
    while place < len(words):
        word = words[place]
        if word == "-":
            return "stdin", "", place
        if not word.startswith("-"):
            return "script", word, place
        if word.startswith("--"):
            place += 2 if word == "--check-hash-based-pycs" else 1
            continue
        for number, letter in enumerate(word[1:], start=2):
            rest = word[number:]
            if letter in "cm" and (rest or place + 1 < len(words)):
                kind: Kind = "-c" if letter == "c" else "-m"
                return kind, rest or words[place + 1], place + (not rest)
            if letter in "WX":
                place += not rest
                break
        place += 1
    return "stdin", "", place


def _shortened(words: Sequence[str]) -> list[str]:
    """The command as a person types it: `unbroken ...` and not `/usr/bin/python3 /usr/bin/unbroken ...`."""
    kind, program, place = _program(words) if _is_shell(words) or _is_python(words[0]) else ("stdin", "", 0)
    can_be_typed = os.path.isfile(program) and os.access(program, os.X_OK)  # noqa: PTH113 - no path of ours
    if kind == "script" and place == 1 and not program.endswith(".py") and can_be_typed:
        return [_found(program), *words[2:]]
    return [_found(words[0]), *words[1:]]


def _found(program: str) -> str:
    """The name alone where the shell finds this very file by it, not another one of the name."""
    from shutil import which  # three compressors come with it

    found = which(_name(program))
    if found is None or Path(found).absolute() != Path(program).absolute():  # resolved, both may be one python
        return program
    return _name(program)


def _is_python(word: str) -> bool:
    return _name(word).startswith(("python", "pypy"))


def _is_shell(words: Sequence[str]) -> bool:
    return bool(words) and _name(words[0]) in SHELLS


def _name(program: str) -> str:
    return Path(program.replace("\\", "/") if os.name == "nt" else program).name


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """The last session of a run: its name ("" if there was none), whether it saved, the furthest step ever saved."""

    session: str
    saved: bool
    saved_step: int


def aftermath(events: Sequence[Mapping[str, Any]]) -> Aftermath:
    """What the last session that is in the journal left."""
    begun = [number for number, event in enumerate(events) if event.get("event") == "session"]
    saves = [number for number, event in enumerate(events) if _is_save(event)]
    return Aftermath(
        session=str(events[begun[-1]].get("session", "")) if begun else "",
        saved=bool(begun) and any(number > begun[-1] for number in saves),
        saved_step=max((int(events[number].get("step") or 0) for number in saves), default=0),
    )


def going_on(start: Start, left: Aftermath) -> Start:
    """From where a run goes on: starting over, or from an old file, is meant once.

    Until something was saved, an old file is still all there is.
    """
    return replace(start, fresh=False, exact=None if left.saved else start.exact)


def _is_save(event: Mapping[str, Any]) -> bool:
    return event.get("event") == "saved" and event.get("kind") == "checkpoint"
