"""What a difference most likely comes from, by elimination: pure, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unbroken.prove.comparison import COUNTERS, TwinComparison
from unbroken.train.record.opening import COUNTS_ANEW

MOST_NAMED = 5
PROBE = "a probe of the weights"  # as the comparison of two records calls it


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a training whose twins differ; None is what was not tried.

    `itself`: two twins in peace are equal. `fixed_hash`, `no_workers`: they are (or, where twins in peace are equal
    anyway, the killed one is its twin) with PYTHONHASHSEED=0, with no loader workers. `one_signal`: the signals that
    alone make no difference.
    """

    comparison: TwinComparison | None = None  # None where sessions could not go on, or were other runs
    failed: str = ""  # how the session after a kill ended
    renamed: tuple[str, str] | None = None  # the names of the run in peace and with kills
    itself: bool | None = None
    fixed_hash: bool | None = None
    settled: bool | None = None  # the same without PYTHONHASHSEED=0 is equal as well: it is not the hash
    no_workers: bool | None = None
    harmless: tuple[str, ...] = ()
    harmful: tuple[str, ...] = ()
    not_tracked: Sequence[str] = ()


def likely(facts: Evidence) -> list[str]:
    """The most likely cause in sentences, the strongest first."""
    counted = [each for each in facts.not_tracked if each.startswith(COUNTS_ANEW)][:1]
    named = [each for each in facts.not_tracked if not each.startswith(COUNTS_ANEW)][:MOST_NAMED]
    if facts.renamed is not None:
        one, other = facts.renamed
        return [
            f"each session gives the run another folder or name ({one}, then {other}), so nothing is ever resumed: "
            "a name must not be made of the time, of chance or of the process's number"
        ]
    if facts.failed:
        return [f"the training cannot be resumed: the session after a kill {facts.failed}", *named]
    if facts.comparison is None:
        return named
    if facts.itself is False:
        return [*_not_the_resume(facts, facts.comparison), *named]
    return _the_resume(facts, facts.comparison, named, counted)


def _not_the_resume(facts: Evidence, found: TwinComparison) -> list[str]:
    if facts.settled:
        return [
            "something that the first training left outside of its run: all later ones are equal. A file, a cache, a "
            "counter that the script itself keeps"
        ]
    if facts.fixed_hash:
        return [
            "the order of a set, or a hash of text: it is another one in each process. Sort what comes out of a set, "
            "and use hashlib for numbers made from text"
        ]
    if facts.no_workers:
        return ["the loader workers: what they draw or count depends on which of them reads what, or when"]
    if found.first is not None and found.first.is_order:
        return ["the order of the samples comes from something that begins anew in each process"]
    return [
        "something that begins anew in each process or comes from outside: a generator without a seed, the time, the "
        "number of the process, a file that the script itself writes and reads, or an operation that is not "
        "deterministic"
    ]


def _the_resume(facts: Evidence, found: TwinComparison, named: list[str], counted: list[str]) -> list[str]:
    if facts.settled:
        return ["something that differs only now and then: prove it again, with more kills", *named]
    if facts.fixed_hash:
        return [
            "the order of a set, or a hash of text, which is another one in the next process: parameters, samples or "
            "words change places at a resume. Sort what comes out of a set",
            *named,
        ]
    if facts.no_workers:
        return ["the loader workers: what a worker holds is begun anew at a resume", *named]
    if named:
        return [*named, *counted, *_where_it_enters(found)]
    if found.first is not None and found.first.is_order:
        return ["the order of the samples depends on something that is not tracked and that a resume begins anew"]
    parts = [part for part in found.parts if part != COUNTERS]
    held = f" (it differs in {', '.join(parts)})" if parts else ""
    if facts.harmless and facts.harmful:
        only = f"it differs after {' and '.join(facts.harmful)} and not after {' and '.join(facts.harmless)}"
        return [*counted, f"something of the steps after the last save that is not in the state: {only}{held}"]
    return [
        *counted,
        f"something that a resume begins anew and the state does not hold{held}: a counter in a variable or in a "
        "closure, an `enumerate` that begins at 0 again, an iterator, what an optimizer keeps outside its state_dict. "
        "Track it: run.track(counters={...})",
        *_where_it_enters(found),
    ]


def _where_it_enters(found: TwinComparison) -> list[str]:
    """What the first difference says of the place in the loop."""
    first = found.first
    if first is None:
        return ["all logged values of all steps are equal: it enters after the last step, or into what no step uses"]
    if first.after_resume != 1:
        return []
    if first.what == PROBE:
        return ["it enters after the loss: the values of the first step after a resume are equal, its weights are not"]
    return [f"it enters at once: {first.what.split()[0]} of the first step after the resume differs"]
