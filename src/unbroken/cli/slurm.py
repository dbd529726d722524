"""`slurm`: a batch script under which a training goes on, job after job, until it is done.

Each task of the job is one process of the training, started by srun itself: so Slurm's warning before the limit reaches
all of them (`--signal` with `B:` would reach the shell alone), and their exit code comes back. An agent between them,
as torchrun is, would end with 1 after a stop, whatever they ended with. https://slurm.schedmd.com/sbatch.html
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unbroken.cli.args import CommandParser, whole
from unbroken.errors import STOPPED, NotInstalled, Refused, UsageError
from unbroken.launch.job import installed
from unbroken.launch.rerun import LAUNCHER_MODULES
from unbroken.quantities import asked, duration_s, duration_text
from unbroken.text import shown

WHERE = "unbroken slurm"
EARLIER_S = 60  # by so much the warning may come before its time
LONGEST_WARNING_S = 65_535
GPUS = re.compile(r"([\w.-]+:)*[1-9]\d{0,4}(,([\w.-]+:)+[1-9]\d{0,4})*", re.ASCII)
OPTION = re.compile(r"(?:#SBATCH\s+)?(--[a-z][a-z-]*|-[A-Za-z])(?:(?:=|\s+)(.+))?", re.DOTALL)
PLAIN = re.compile(r"[\w@%+=:,./^~*\[\]-]+", re.ASCII)  # what Slurm takes without quotes
NOT_ON_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Launchers that end with 1 once they, or one of the processes that they started, are stopped.
HIDING = {"torchrun", "accelerate", "deepspeed", "colossalai", *LAUNCHER_MODULES}
# What the script says itself, and the option of ours that says it ("": it cannot be otherwise).
SAID = {
    **dict.fromkeys(("--time", "-t"), "--time"),
    **dict.fromkeys(("--nodes", "-N"), "--nodes"),
    **dict.fromkeys(("--ntasks", "-n", "--ntasks-per-node"), "--processes"),
    **dict.fromkeys(("--gpus-per-node",), "--gpus"),
    **dict.fromkeys(("--partition", "-p"), "--partition"),
    "--signal": "--signal",
    **dict.fromkeys(("--requeue", "--no-requeue", "--open-mode", "--wrap"), ""),
}
# srun ends with the highest exit code of all tasks: that of one that failed has to be above the 75 of those that
# stopped because of it. So much more is above what a signal gives too (128 and at most 31), and leads to 252 at most.
HIGHER = 178


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """What is asked of Slurm, and the command that each process is.

    `processes` and `gpus` are those of each node; `others` are further options, as they stand behind `#SBATCH`.
    """

    command: Sequence[str]
    time_s: int
    warning_s: int
    nodes: int = 1
    processes: int = 1
    gpus: str = ""
    partition: str = ""
    others: Sequence[str] = ()

    def script(self) -> str:
        """The batch script; pure."""
        return "\n".join(["#!/bin/bash", *(f"#SBATCH {each}" for each in self._options()), *self._body(), ""])

    def _options(self) -> list[str]:
        minutes, seconds = divmod(self.time_s, 60)
        hours, minutes = divmod(minutes, 60)
        return [
            f"--time={hours // 24}-{hours % 24:02d}:{minutes:02d}:{seconds:02d}",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.processes}",
            *([f"--gpus-per-node={self.gpus}"] if self.gpus else []),
            *([f"--partition={quoted(self.partition)}"] if self.partition else []),
            f"--signal=TERM@{self.warning_s}",
            "--requeue",
            "--open-mode=append",
            *self.others,
        ]

    def _body(self) -> list[str]:
        command = shlex.join(self.command)
        several = self.nodes * self.processes > 1
        return [
            "",
            "# srun does not take this over from sbatch by itself.",
            '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
            *(self._together(command) if several else ["", f"srun {command}", "code=$?"]),
            "",
            f"# {STOPPED}: everything is saved, and the same job goes on. Whatever else it is, it is over.",
            f'[ "$code" -ne {STOPPED} ] || scontrol requeue "$SLURM_JOB_ID"',
            'exit "$code"',
        ]

    def _together(self, command: str) -> list[str]:
        """The step of several tasks: each is told which one it is, as torchrun tells it."""
        return [
            "",
            "# Where the processes meet: the first node, at a port that no other job of it has.",
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((10000 + (SLURM_JOB_ID + SLURM_RESTART_COUNT) % 20000))",
            "export MASTER_ADDR MASTER_PORT",
            "",
            "# srun ends with the highest exit code of all. Of a process that failed it travels as",
            f"# {HIGHER} more, or the {STOPPED} of those that stopped because of it would hide it. A signal",
            "# reaches this shell too: it waits for its process.",
            f"srun --kill-on-bad-exit=0 --wait={self.warning_s} bash -c '",
            "    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID",
            "    export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE",
            "    trap : TERM INT USR1 HUP",
            '    "$@"',
            "    code=$?",
            f"    [ $code -eq 0 ] || [ $code -ge {STOPPED} ] || code=$((code + {HIGHER}))",
            "    exit $code",
            f"' task {command}",
            "code=$?",
            f'[ "$code" -le {HIGHER} ] || [ "$code" -ge {HIGHER + STOPPED} ] || code=$((code - {HIGHER}))',
        ]


def quoted(value: str) -> str:
    """A value as Slurm's own reader of `#SBATCH` lines takes it: a backslash goes before what would mean something."""
    return value if PLAIN.fullmatch(value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def slurm_options(parser: CommandParser) -> None:
    """What is asked of Slurm; these options stand before the command."""
    parser.add_argument("command", nargs="?", metavar="-- COMMAND", help="what trains, as it is typed")
    parser.add_argument("--time", default="", metavar="TIME", help="limit of each job: 4h, 12:00:00, 1-00:00:00")
    parser.add_argument("--nodes", type=whole(1), default=1, metavar="N", help="how many machines (default: 1)")
    parser.add_argument(
        "--processes", type=whole(1), default=1, metavar="N", help="processes on each of them (default: 1)"
    )
    parser.add_argument("--gpus", default="", metavar="[TYPE:]N", help="GPUs of each machine")
    parser.add_argument("--partition", default="", metavar="NAME", help="the queue (default: as the cluster has it)")
    parser.add_argument(
        "--signal",
        default="2m",
        metavar="TIME",
        help="SIGTERM so long before the limit: more than a step and a save take (default: 2m)",
    )
    parser.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="a further option of sbatch; may be repeated"
    )
    parser.add_argument("--submit", action="store_true", help="give the script to sbatch instead of printing it")
    parser.add_examples(
        "unbroken slurm --time 4h --gpus 1 -- python train.py > job.sh",
        "unbroken slurm --time 1-00:00:00 --nodes 2 --processes 4 --gpus 4 --submit -- python train.py",
        "unbroken slurm --time 12h --sbatch=--account=lab --sbatch=--mem=64G -- unbroken train RECIPE CONFIG",
    )


def slurm_command(options: argparse.Namespace) -> int:
    """Print a batch script of Slurm under which a training goes on, job after job, until it is done; or submit it.

    Before its time limit the job is told to stop. It saves, ends with exit code 75, and goes back into the queue;
    with any other exit code it is over.
    """
    script = batch_job(options).script()
    if not options.submit:
        print(script, end="")
        return 0
    if (sbatch := shutil.which("sbatch")) is None:
        raise NotInstalled(
            "sbatch",
            "Slurm's command is not on this machine's PATH",
            do="Type this on a login node of the cluster, or print the script without --submit and take it there.",
        )
    done = subprocess.run([sbatch], input=script, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        said = shown(" ".join(done.stderr.split()))
        raise Refused("sbatch", "it did not take the script", found=said or f"exit code {done.returncode}")
    print(done.stdout, end="")
    return 0


def batch_job(options: argparse.Namespace) -> BatchJob:
    """What was typed, as a job; UsageError where Slurm or a shell would make something else of it."""
    _require_command(options.words)
    if not options.time:
        raise UsageError(
            WHERE,
            "--time is missing: a job without a limit of its own has that of its partition, which is not known here",
            expected="how long each job may take; the training goes on in the next one",
            do="Type for instance: --time 4h",
        )
    time_s, warning_s = (
        math.ceil(asked(f"--{each}", duration_s, getattr(options, each))) for each in ("time", "signal")
    )
    if not 1 <= warning_s <= LONGEST_WARNING_S:
        raise UsageError("--signal", "Slurm takes 1 s to 18 h of it", found=options.signal)
    if time_s <= warning_s + EARLIER_S:
        raise UsageError(
            "--time",
            "no time is left to train in",
            expected=f"more than {duration_text(warning_s + EARLIER_S)}: the warning comes --signal before the limit, "
            "and up to a minute earlier",
            found=duration_text(time_s),
        )
    if options.gpus and not GPUS.fullmatch(options.gpus):
        raise UsageError("--gpus", "this is no number of GPUs", expected="4 or a100:4", found=repr(shown(options.gpus)))
    _require_one_line("--partition", options.partition)
    return BatchJob(
        command=options.words,
        time_s=time_s,
        warning_s=warning_s,
        nodes=options.nodes,
        processes=options.processes,
        gpus=options.gpus,
        partition=options.partition,
        others=[_further(each) for each in options.sbatch],
    )


def _require_command(command: Sequence[str]) -> None:
    """Raise UsageError for a command that is none, or whose exit code would not come back."""
    from unbroken.cli.tree import COMMANDS

    if not any(command[:1]):
        raise UsageError(
            WHERE,
            "what to run is missing",
            expected="a command that trains, and ends with 75 when it was stopped",
            do=f"Type: {WHERE} --time 4h -- python train.py",
        )
    for word in command:
        _require_one_line("COMMAND", word)
    first = command[0]
    before = ["unbroken"] if first in COMMANDS else ["unbroken", "train"] if first in installed() else []
    before = ["python"] if first.endswith(".py") else before
    if before and shutil.which(first) is None:
        meant = shlex.join([*before, *command])
        raise UsageError(WHERE, f"{shown(first)} is no program", do=f"Type behind the options: -- {meant}")
    if launcher := _launcher(command):
        raise UsageError(
            WHERE,
            f"{launcher} ends with 1 after a stop, so that the job would not go on",
            expected="the command of one process: Slurm starts as many as --nodes and --processes say",
            do=f"Type: {WHERE} --processes N -- python train.py",
        )


def _launcher(command: Sequence[str]) -> str:
    """The launcher that a command begins with, be it under another program; "" for none."""
    for place, word in enumerate(command):
        if Path(word).name in HIDING:
            return word
        if word == "-m" or word.endswith((".py", ".sh")):  # the program: what follows it is its own
            module = "".join(command[place + 1 : place + 2]) if word == "-m" else ""
            return module if module in HIDING else ""
    return ""


def _further(text: str) -> str:
    """An option of sbatch as it stands behind `#SBATCH`; UsageError for what is none, or is said by one of ours."""
    _require_one_line("--sbatch", text)
    found = OPTION.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            "--sbatch", "this is no option of sbatch", expected="--sbatch=--account=lab", found=repr(shown(text))
        )
    name, value = found.groups()
    # sbatch takes the beginning of a long option for it; this one is an option of its own.
    same = [each for each in SAID if each == name or (each.startswith(name) and len(name) > 2 and name != "--gpus")]
    if same:
        use = f"Use {WHERE} {SAID[same[0]]}." if SAID[same[0]] else "Leave it out: else the training would not go on."
        raise UsageError(f"--sbatch={name}", "the script says this already", do=use)
    if value is None:
        return name
    if value[0] in "\"'" and value[-1] == value[0] and len(value) > 1:  # quoted as for a line of a script
        value = value[1:-1]
    elif re.search(r"\s--[a-z]", value):
        raise UsageError(
            f"--sbatch={name}", "these are several options", found=shown(value), do="Give each an --sbatch of its own."
        )
    return f"{name}{'=' if name.startswith('--') else ' '}{quoted(value)}"


def _require_one_line(where: str, word: str) -> None:
    """Raise UsageError for a word that would begin a line of the script, or that no file of text can hold."""
    if (found := NOT_ON_A_LINE.search(word)) is not None:
        raise UsageError(
            where,
            "it has a character that no line of a script can hold",
            found=shown(f"{found[0]!r} in {word!r}"),
            do="Put what needs it into a file of its own, and run that.",
        )
