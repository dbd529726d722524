"""An evaluation that all processes of a run share out: each reads its part of the samples, and has all results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from unbroken.train.data.loader import BadSample, Collate
from unbroken.train.data.one_pass import one_pass
from unbroken.train.distributed.world import this_world

Result = TypeVar("Result")


def shared_pass(
    dataset: Any,
    use: Callable[[Any], Result],
    *,
    batch_size: int,
    workers: int,
    collate: Collate | None = None,
    skip_bad: bool = False,
    poll: Callable[[], None] = lambda: None,
    say: Callable[[str], None],
) -> list[Result]:
    """Return what is made of each batch of a data set, in order; several processes share them out, and each has all.

    Args:
        dataset: As `one_pass` takes it.
        use: Makes something of a batch that other processes can be sent.
        batch_size: Samples of a batch; the last one may be smaller.
        workers: Processes that read; 0: this one.
        collate: Makes a batch of a list of samples; None: as torch does.
        skip_bad: Whether a sample that cannot be read is left out and said; else it ends the pass.
        poll: Called before each batch, for who may want to stop.
        say: Told of each sample that is left out, by whichever process.
    """
    world, left_out = this_world(), list[str]()

    def skipped(bad: BadSample) -> None:
        left_out.append(f"skipped in evaluation: {bad.reason}")

    batches = one_pass(
        dataset,
        batch_size=batch_size,
        workers=workers,
        collate=collate,
        skipped=skipped if skip_bad else None,
        share=(world.rank, world.size),
    )
    found: list[Result] = []
    for batch in batches:
        poll()
        found.append(use(batch))
    told = world.gather_values((found, left_out))
    for line in (line for _, lines in told for line in lines):
        say(line)
    return [result for results, _ in told for result in results]
