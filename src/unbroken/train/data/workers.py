"""Worker processes that read ahead, each on a pipe of its own, so that any of them may die at any instant.

No lock and no queue is shared: what a dead worker held harms nobody, half a message ends with its writer, and what was
asked of it is asked of a new one. The answers come in the order of the requests, whoever read them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any, Protocol

import torch
import torch.multiprocessing
from torch.utils.data._utils import worker as torch_worker

from unbroken.errors import UnbrokenError, UnreadableSample, UsageError, WorkersKilled
from unbroken.quantities import counted
from unbroken.storage.stop_request import ASKING
from unbroken.train.stop import interruptible

MOST_DEATHS = 3  # over the same samples
AHEAD = 2  # requests that a worker has at a time
LARGE = 1000  # samples; two such requests might fill a pipe that nobody reads
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ENDING_S = 1.0  # for a process whose pipe has broken
_PROCESSES: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class LostWorker:
    """A worker that died: how, and which samples it was reading ("" for none)."""

    how: str
    samples: str

    def __str__(self) -> str:
        again = f" and reads {self.samples} again" if self.samples else ""
        return f"a loader worker {self.how}; a new one takes its place{again}"


class Server(Protocol):
    """What a worker does: turns a request into an answer, both of which travel."""

    def __call__(self, request: Any) -> Any:
        """Answer one request."""
        ...

    def words(self, request: Any) -> str:
        """What a person calls it."""
        ...

    def size(self, request: Any) -> int:
        """How many samples it asks for."""
        ...


class How(Protocol):
    """How busy they are kept, and what each of them begins with."""

    @property
    def ahead(self) -> int:
        """Requests that a worker has at a time."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long an answer may be waited for; 0 for ever."""
        ...

    @property
    def begin_worker(self) -> Callable[[int], None] | None:
        """Called in each worker, with its number."""
        ...

    @property
    def context(self) -> Any:
        """That of multiprocessing; None for torch's."""
        ...


@dataclass
class WorkerLossListener:
    """Who is told of lost workers: the session that is open in this process, if one is."""

    listener: Callable[[LostWorker], None] | None = None


TOLD = WorkerLossListener()


@dataclass(kw_only=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    asked: deque[tuple[int, Any]] = field(default_factory=deque)  # the requests it has, oldest first
    singly: int = 0  # so many it gets one at a time: after a death, the request that is to blame is known

    def ask(self, number: int, request: Any) -> None:
        self.asked.append((number, request))
        if not self.singly or len(self.asked) == 1:
            self._send(request)

    def answered(self) -> int:
        """Take the oldest request off; returns its number."""
        number, _ = self.asked.popleft()
        if self.singly:
            self.singly -= 1
            for _, request in list(self.asked)[: 1 if self.singly else None]:
                self._send(request)
        return number

    def _send(self, request: Any) -> None:
        with suppress(OSError):  # it is dead, which is seen when its answer is waited for
            self.pipe.send(request)


class Workers:
    """Answers from `workers` processes, in the order of `requests`; `close` ends them.

    A request that has cost three workers their lives is answered by an UnreadableSample or WorkersKilled.
    """

    def __init__(
        self, serve: Server, requests: Iterator[Any], *, workers: int, dataset: Any, how: How | None = None
    ) -> None:
        self._serve, self._requests, self._dataset = serve, requests, dataset
        self._ahead, self._timeout_s = (how.ahead, how.timeout_s) if how is not None else (AHEAD, 0.0)
        self._begin = how.begin_worker if how is not None else None
        self._context = (how.context if how is not None else None) or torch.multiprocessing.get_context()
        self._answers: dict[int, Any] = {}  # those that were ready before their turn
        self._handed_out = self._asked = 0
        self._deaths: Counter[int] = Counter()  # by request
        self._count = workers
        # At its exit a process asks its children to end, and waits; ours ignore that, so they are ended before. It does
        # so with what multiprocessing knows: functions of atexit are not called in a process that multiprocessing made.
        Finalize(None, end_workers, exitpriority=0)
        self._workers = [self._started(index) for index in range(workers)]

    def __iter__(self) -> Iterator[Any]:
        """Answer after answer."""
        while True:
            self._ask_ahead()
            if self._handed_out == self._asked:
                return
            with interruptible():  # a batch may take minutes, or never come
                while self._handed_out not in self._answers:
                    self._collect()
            answer = self._answers.pop(self._handed_out)
            self._handed_out += 1
            yield answer

    def close(self) -> None:
        """End the processes at once."""
        end_processes([worker.process for worker in self._workers])
        for worker in self._workers:
            worker.pipe.close()

    def _ask_ahead(self) -> None:
        ahead = self._ahead
        while self._asked < self._handed_out + ahead * self._count:
            request = next(self._requests, None)
            if request is None:
                return
            if self._serve.size(request) > LARGE:
                ahead = 1
            self._workers[self._asked % self._count].ask(self._asked, request)
            self._asked += 1

    def _collect(self) -> None:
        """Take what is there, or wait until something is."""
        ends = [end for worker in self._workers for end in (worker.pipe, worker.process.sentinel)]
        ready = wait(ends, self._timeout_s or None)
        if not ready:
            raise UnreadableSample(
                self._serve.words(self._workers[self._handed_out % self._count].asked[0][1]),
                f"no loader worker had a batch ready within {self._timeout_s:g} s, the timeout of the loader",
                do="Look at what they wait for, or take a longer timeout.",
            )
        for index, worker in enumerate(self._workers):
            if worker.pipe in ready:
                self._receive(index, worker)
            elif worker.process.sentinel in ready:
                self._replace(index, worker)

    def _receive(self, index: int, worker: _Worker) -> None:
        try:
            answer = worker.pipe.recv()
        except Exception as error:
            worker.process.join(ENDING_S)
            if not worker.process.is_alive():
                self._replace(index, worker)
                return
            raise UsageError(
                self._serve.words(worker.asked[0][1]),
                "what a worker made of them cannot be received",
                found=f"{type(error).__name__}: {error}",
                do="Raise the limit of open files (ulimit -n), or take fewer workers.",
            ) from error
        self._answers[worker.answered()] = answer

    def _replace(self, index: int, worker: _Worker) -> None:
        """A new worker does what was asked of a dead one; what has ended three of them is answered by an error."""
        worker.process.join()
        worker.pipe.close()
        code, samples = worker.process.exitcode or 0, ""
        if worker.asked:  # else it died while it had nothing to do
            number, request = worker.asked[0]
            samples = self._serve.words(request)
            self._deaths[number] += 1
            if self._deaths[number] >= MOST_DEATHS:
                self._answers[number] = giving_up(code, samples)
                worker.asked.popleft()
        if TOLD.listener is not None:
            TOLD.listener(LostWorker(how=how_it_ended(code), samples=samples))
        new = self._workers[index] = self._started(index)
        new.singly = len(worker.asked)
        for number, request in worker.asked:
            new.ask(number, request)

    def _started(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(self._serve, self._dataset, theirs, index, self._count, self._begin), daemon=True
        )
        process.start()
        _PROCESSES.add(process)
        theirs.close()
        return _Worker(process=process, pipe=ours)


def how_it_ended(code: int) -> str:
    """`was killed by SIGKILL, perhaps because ...`, `ended with exit code 3`."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed by {name}" + (" (perhaps the machine ran out of memory)" if name == "SIGKILL" else "")


def giving_up(code: int, samples: str) -> UnbrokenError:
    """The error that ends a reading which ended three workers, the last one with `code`."""
    what = f"{counted(MOST_DEATHS, 'loader worker')} in a row died over it; the last one {how_it_ended(code)}"
    if code == -signal.SIGKILL:
        return WorkersKilled(
            samples, what, do="Take fewer workers (--workers), a smaller batch, or a machine with more memory."
        )
    return UnreadableSample(samples, what, do="Reading them ends the process that does: look at them with workers=0.")


def _work(
    serve: Server, dataset: Any, pipe: Connection, index: int, workers: int, begin: Callable[[int], None] | None
) -> None:
    """The life of a worker."""
    _serve_the_trainer()
    torch.set_num_threads(1)
    torch_worker._worker_info = torch_worker.WorkerInfo(id=index, num_workers=workers, seed=0, dataset=dataset)
    if begin is not None:
        begin(index)
    while True:
        try:
            request = pipe.recv()
        except (EOFError, OSError):
            return
        answer = serve(request)
        try:
            message = ForkingPickler.dumps(answer)
        except Exception as error:  # noqa: BLE001 - whatever the objects of a user's data set raise
            refusal = UsageError(
                serve.words(request),
                "what the data set made of them cannot be sent from a worker process",
                expected="tensors, arrays, numbers, texts, and lists, tuples and dicts of these",
                found=f"{type(error).__name__}: {error}",
                do="Return such values from __getitem__ and collate.",
            )
            message = ForkingPickler.dumps(refusal)
        pipe.send_bytes(message)


def _serve_the_trainer() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of the group; only the trainer may act on them.

    A worker also ends with its trainer at once (Linux): orphans would burn time and talk into the next session. It
    reads no terminal: nobody would know what is asked.
    """
    end_with_parent(signal.SIGKILL)
    for name in ASKING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.close(nowhere)


def end_with_parent(number: signal.Signals) -> None:
    """Get this signal at once where the process that started this one ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def end_workers() -> None:
    """End the workers of this process at once: asked to end they would be waited for, one that hangs for ever."""
    end_processes([process for process in _PROCESSES if process.is_alive()])


def end_processes(processes: list[BaseProcess]) -> None:
    """Kill them and wait until they are gone."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
