"""The processes of one training as one of them sees them: which it is, and what they tell each other.

The messages go over a process group of their own (Gloo, on the CPU), beside whatever the training itself uses. It is
made from what a launcher leaves in the environment, the same as `torch.distributed.init_process_group` reads. Sums of
what lies on GPUs go from one to the other (NCCL) where each process has its own.

A ring reduction adds an element's terms in an order that hangs on where in a message it lies, and floating-point
addition is not associative. `ordered_sum` gives each process one part of the elements from all shards; it adds them in
the order of the shards and sends the sums to all: the traffic of a ring reduction, for as many shards as processes.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from unbroken.errors import ProcessLost, UnbrokenError, UsageError
from unbroken.launch.host import Processes, collective_timeout_s, processes_said
from unbroken.train.stop import Interrupted

Value = TypeVar("Value")
COUNTED, SHORT = 8, 504  # bytes of a length, and of what travels with it: most of what is said is not longer
NAMED = 128  # bytes of a reason that travels with each agreement
HEARD_WITHIN_S, LOOKS_EVERY_S = 2.0, 0.05
UNASKED = object()
SIGNALS_HEARD_EVERY = timedelta(seconds=0.1)  # while a message is waited for: native code lets no handler run
# Of what Gloo says: `Connection closed by peer [10.0.0.7]:2725`, `[10.0.0.7]:2725: Connection reset by peer`.
WHAT_HAPPENED = re.compile(r"Connection closed by peer \S+\d|\[[^\[\]]+\]:\d+: [\w ]+|Timed out[\w ]+")


class World:
    """All processes of a training, as one of them sees them; with one that is alone nothing has to travel.

    Every method that sends something is called by all of them, in the same order.

    Args:
        rank: Which of them this is, from 0 on.
        size: How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._group: Any = None
        self._place: Any = None  # where all of them have met, which stays
        self._store: Any = None  # there, what those of the present group leave a word in
        self._gpus: Any = UNASKED  # the same between the GPUs of all; None: there is none
        self._met = 0  # how often: each run that a program opens has a group of its own
        self._under_way = False  # a message
        self.has_left = False  # this process, its loop, without the others
        self.told: UnbrokenError | None = None  # what ends this process, if others know of it or it came from them

    @property
    def leads(self) -> bool:
        """Tell whether this is the process that decides, writes and prints."""
        return self.rank == 0

    @property
    def group(self) -> Any:
        """The process group that their messages go over, made when it is first needed."""
        if self._group is None:
            if not dist.is_available() or not dist.is_gloo_available():
                raise UsageError(
                    "torch", "it is built without torch.distributed and Gloo", do="Train with one process."
                )
            self._met += 1
            try:
                beside(self._meet)
            except (RuntimeError, ValueError) as error:
                self.lost(error)
        return self._group

    def _meet(self) -> None:
        """Wait for all of them where the launcher said, as long as a message may take."""
        if self._place is None:
            self._place, _, _ = next(rendezvous("env://", self.rank, self.size))
        # Of each start of the processes by its own name: an agent keeps the place when it starts them again.
        self._store = PrefixStore(f"unbroken/{processes_said().starts}/{self._met}", self._place)
        timeout = timedelta(seconds=collective_timeout_s())
        self._group = dist.ProcessGroupGloo(self._store, self.rank, self.size, timeout)

    def tell(self, value: Value) -> Value:
        """Return in every process what rank 0 gives.

        Args:
            value: What rank 0 says; of the others it counts for nothing, and they may `hear` instead.
        Returns:
            The value of rank 0.
        """
        if self.size == 1:
            return value
        if not self.leads:
            heard: Value = self.hear()
            return heard
        data = torch.frombuffer(bytearray(ForkingPickler.dumps(value)), dtype=torch.uint8)
        for message in (torch.tensor([len(data)]), data):
            self._done(partial(self.group.broadcast, message, root=0))
        return value

    def hear(self) -> Any:
        """Return what rank 0 tells; of the others only."""
        length = torch.empty(1, dtype=torch.int64)
        self._done(partial(self.group.broadcast, length, root=0))
        data = torch.empty(int(length), dtype=torch.uint8)
        self._done(partial(self.group.broadcast, data, root=0))
        return ForkingPickler.loads(data.numpy().tobytes())

    def gather(self, row: Tensor) -> list[Tensor]:
        """Collect a tensor of each process.

        Args:
            row: On the CPU, of one shape and one type in all of them.
        Returns:
            Those of all processes, by rank.
        """
        if self.size == 1:
            return [row]
        row = row.contiguous()
        rows = [torch.empty_like(row) for _ in range(self.size)]
        self._done(partial(self._carrier(row).allgather, [rows], [row]), on_gpu=row.is_cuda)
        return rows

    def gather_values(self, value: Value) -> list[Value]:
        """Collect a value of each process, such as what it counted in its share of a validation.

        Args:
            value: Anything that can be pickled.
        Returns:
            Those of all processes, by rank.
        """
        if self.size == 1:
            return [value]
        data = bytes(ForkingPickler.dumps(value))
        said = [
            row.numpy().tobytes()
            for row in self.gather(_padded(len(data).to_bytes(COUNTED) + data[:SHORT], COUNTED + SHORT))
        ]
        lengths = [int.from_bytes(each[:COUNTED]) for each in said]
        pieces = [each[COUNTED : COUNTED + length] for each, length in zip(said, lengths)]
        if (longest := max(lengths) - SHORT) > 0:  # what did not fit follows
            rests = self.gather(_padded(data[SHORT:], longest))
            pieces = [piece + rest.numpy().tobytes() for piece, rest in zip(pieces, rests)]
        return [ForkingPickler.loads(piece) for piece in pieces]

    def agree(self, reason: str | None) -> str | None:
        """Let one process that has a reason have it for all.

        Args:
            reason: Of this process; None: it has none. So much of it travels as fits into 128 bytes.
        Returns:
            That of the lowest rank that has one; None where no process has.
        """
        if self.size == 1:
            return reason
        rows = self.gather(_padded(row_of(reason), NAMED))
        return first_reason(row.numpy().tobytes() for row in rows)

    def exchange(self, pieces: Tensor) -> Tensor:
        """Send each process a piece (all-to-all).

        Args:
            pieces: One for each rank along the first dimension, on the CPU, alike in shape and type everywhere.
        Returns:
            What the processes sent here, by rank.
        """
        if self.size == 1:
            return pieces
        pieces = pieces.contiguous()
        found = torch.empty_like(pieces)
        even: list[int] = []
        self._done(partial(self._carrier(pieces).alltoall_base, found, pieces, even, even), on_gpu=pieces.is_cuda)
        return found

    def ordered_sum(self, shards: Sequence[Tensor]) -> Tensor:
        """Add flat tensors over all shards of all processes, rank after rank.

        The bits do not depend on how many processes the shards are dealt out to.

        Args:
            shards: Those of this process, in their order, of one length and one type; equally many in each process.
        Returns:
            The sum, of that length and type.
        """
        if self.size == 1:
            return in_order(shards)
        length = len(shards[0])
        width = -(-length // self.size)
        # (shards here, ranks * width) -> (ranks, shards here, width): each process gets its part of every shard here.
        place = shards[0].device if self._connects(shards[0].device) else None  # None: by way of the CPU
        padded = torch.zeros(len(shards), self.size * width, dtype=shards[0].dtype, device=place)
        for row, shard in zip(padded, shards):
            row[:length] = shard
        from_all = self.exchange(padded.view(len(shards), self.size, width).transpose(0, 1))
        summed = in_order(from_all.reshape(-1, width))
        return torch.cat(self.gather(summed))[:length].to(shards[0].device)

    def wait_for_all(self) -> None:
        """Return once every process has come here."""
        self.gather(torch.zeros(1, dtype=torch.uint8))

    def close(self) -> None:
        """Let go of the group: the others hear of it, and its threads would abort the end of the process.

        One that a message is under way in is kept for good, beyond the end of the interpreter: letting go would wait
        for the message.
        """
        if self._under_way:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._group))
        self._group, self._gpus, self._under_way = None, UNASKED, False

    def _connects(self, device: torch.device) -> bool:
        """Whether tensors travel from this device to those of the others: over NCCL, each process having its own GPU.

        All ask at once. Two that share a GPU are refused by NCCL, and some builds of torch lack it: by the CPU then.
        """
        if device.type != "cuda" or not dist.is_nccl_available():
            return False
        if self._gpus is UNASKED:
            gpus = self.gather_values(str(torch.cuda.get_device_properties(device).uuid))
            self._gpus = None
            if len(set(gpus)) == self.size:
                options = dist.ProcessGroupNCCL.Options()
                options._timeout = timedelta(seconds=collective_timeout_s())
                self._gpus = dist.ProcessGroupNCCL(PrefixStore("gpus", self._store), self.rank, self.size, options)
        return self._gpus is not None

    def _carrier(self, tensor: Tensor) -> Any:
        return self._gpus if tensor.is_cuda else self.group

    def _done(self, begin: Callable[[], Any], *, on_gpu: bool = False) -> None:
        """Return once a message is through; between GPUs once the present stream will wait for it.

        There a wait that comes to its end would break the group off: it is not looked up from.
        """
        try:
            work, self._under_way = begin(), True
            while not on_gpu and not work.is_completed():
                with suppress(RuntimeError):  # it has not come in this while; or what went wrong, which is said below
                    work.wait(SIGNALS_HEARD_EVERY)
            self._under_way = False
            work.wait()
        except RuntimeError as error:
            self.lost(error)

    def lost(self, error: BaseException) -> NoReturn:
        """Raise the error of a process that waited for the others in vain: that of another one, where it left word.

        Args:
            error: What the process group said.
        Raises:
            ProcessLost: Nobody left word; it names the ranks that are not heard of any more.
        """
        said = " ".join(str(error).split()) or type(error).__name__
        if (short := WHAT_HAPPENED.search(said)) is not None:
            said = short[0]
        others = [rank for rank in range(self.size) if rank != self.rank]
        for rank in others:
            if (theirs := self._word_of(rank)) is not None:
                self.told = theirs
                raise theirs from error
        missing = [rank for rank in others if not self._is_heard_of(rank)]
        which = f"process {' and '.join(map(str, missing))} of this training" if missing else "another process of it"
        raise ProcessLost(
            f"process {self.rank} of {self.size}",
            f"{which} has ended, or hangs",
            found=said[:200],
            do="Run the same command again: it goes on from the last checkpoint. If the other said why, it is above.",
        ) from error

    def explained(self, error: BaseException | None) -> BaseException | None:
        """Return what to say of an error of a loop.

        Args:
            error: What ended it; None: nothing did.
        Returns:
            Why the other process ended, or a ProcessLost, where the error came out of messages to it; else the error.
        """
        of_messages = isinstance(error, dist.DistError) or "gloo/transport" in str(error)
        if self.size == 1 or not of_messages or not isinstance(error, RuntimeError) or isinstance(error, UnbrokenError):
            return error
        try:
            self.lost(error)
        except UnbrokenError as lost:
            return lost

    def leave_word(self, error: BaseException | None) -> None:
        """Let the others know what ends this process: those that print nothing would take it with them.

        Args:
            error: What ends it; nothing is left of one that came from another process.
        """
        if isinstance(error, Interrupted):
            error = ProcessLost(error.reason, "it has ended, and all end with it", do="Run the same command again.")
        elif not isinstance(error, UnbrokenError) or isinstance(error, ProcessLost) or error is self.told:
            return
        self._leave(error)

    def leave_in(self, step: int) -> None:
        """Go without the others, which hear of it at their next message and not when their patience ends.

        Args:
            step: In whose middle the loop of this process was left.
        """
        if self.size == 1:
            return
        what = "its loop was left in the middle of the step, where the others wait for it"
        self._leave(ProcessLost(f"step {step}", what, do="Leave it after a step, or in all processes at once."))
        self.close()
        self.has_left = True

    def _leave(self, error: UnbrokenError) -> None:
        if self._group is None:  # they have not met, and who waits for that has the store to itself
            return
        with suppress(RuntimeError, AttributeError):  # as in `_is_heard_of`
            self._store.set(f"ended/{self.rank}", ForkingPickler.dumps(error).tobytes())
            self.told = error

    def _word_of(self, rank: int) -> UnbrokenError | None:
        """The error by which another process ended, with its rank."""
        with suppress(RuntimeError, AttributeError):
            if self._store.check([f"ended/{rank}"]):
                error: UnbrokenError = ForkingPickler.loads(self._store.get(f"ended/{rank}"))
                error.where = f"process {rank}: {error.where}"
                error.args = (str(error),)
                return error
        return None

    def _is_heard_of(self, rank: int) -> bool:
        """Whether another process, which the same has happened to, says so within a moment."""
        with suppress(RuntimeError, AttributeError):  # the store went with its host, or was never reached
            self._store.set(f"waits/{self.rank}", "")
            for _ in range(int(HEARD_WITHIN_S / LOOKS_EVERY_S)):
                if self._store.check([f"waits/{rank}"]):
                    return True
                threading.Event().wait(LOOKS_EVERY_S)
        return False


def row_of(reason: str | None) -> bytes:
    """What a process sends of its reason: equally many bytes from each, NULs where it has none."""
    return (reason or "").encode()[:NAMED].ljust(NAMED, b"\0")


def first_reason(rows: Iterable[bytes]) -> str | None:
    """What all take from what each sent: the reason of the lowest rank that has one; None where nobody has."""
    said = next((words for row in rows if (words := row.rstrip(b"\0"))), None)
    return None if said is None else said.decode("utf-8", "ignore")


def beside(call: Callable[[], None]) -> None:
    """Do what waits in native code in a thread, so that signals are heard here meanwhile."""
    failed = list[BaseException]()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failed.append(error)

    thread = threading.Thread(target=run, name="unbroken-meet", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(SIGNALS_HEARD_EVERY.total_seconds())
    if failed:
        raise failed[0]


def _padded(data: bytes, length: int) -> Tensor:
    return torch.frombuffer(bytearray(data.ljust(length, b"\0")), dtype=torch.uint8)


def in_order(terms: Sequence[Tensor] | Tensor) -> Tensor:
    """The sum of equally shaped tensors, one after the other."""
    total = terms[0].clone()
    for term in terms[1:]:
        total += term
    return total


def this_world() -> World:
    """Return the world that a launcher told this process of; one without others where none did."""
    return _world(processes_said())


@cache
def _world(said: Processes) -> World:
    return World(said.rank, said.size)
