"""The proof: twins in peace and with kills, compared; where they differ, further twins find out why."""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbroken.errors import UsageError
from unbroken.launch.host import inherited
from unbroken.prove.cause import Evidence, likely
from unbroken.prove.comparison import TwinComparison, compare, plain, state_in_words
from unbroken.prove.kills import SIGNALS, Kill, choose_kills, in_words, save_interval
from unbroken.prove.trial import Start
from unbroken.prove.twin import FEWEST, Setup, Twin, require_trained, train

STEPS, KILLS, WORKERS, PATIENCE_S = 30, 3, (0, 2), 600.0
FIXED_HASH = "0"
SEEDS = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is proved.

    Args:
        steps: Optimizer steps that are compared.
        kills: How often the killed training is killed, at least once.
        workers: Numbers of loader workers to train with besides the loop's own; () for none.
        seed: Chooses the kills; None: another one each time, which is said.
        patience_s: Seconds without a sign of life after which a session is taken to hang.
        keep: Whether the scratch folder stays.
        hash_seeds: Whether PYTHONHASHSEED=0 is among what is tried.
    Raises:
        UsageError: A value with which nothing would be proved.
    """

    steps: int = STEPS
    kills: int = KILLS
    workers: tuple[int, ...] = WORKERS
    seed: int | None = None
    patience_s: float = PATIENCE_S
    keep: bool = False
    hash_seeds: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        """Refuse what proves nothing before anything is trained."""
        workers = isinstance(self.workers, tuple | list) and all(_is_whole(number, 0) for number in self.workers)
        patience = isinstance(self.patience_s, int | float) and self.patience_s > 0
        for name, is_sound, what, expected in (
            ("steps", _is_whole(self.steps, FEWEST), "too few to resume in", f"a whole number from {FEWEST} on"),
            ("kills", _is_whole(self.kills, 1), "without a kill nothing is resumed", "a whole number from 1 on"),
            ("workers", workers, "these are no numbers of loader workers", "whole numbers, as (0, 2), or ()"),
            ("seed", self.seed is None or _is_whole(self.seed, 0), "this is no seed", "a whole number or None"),
            ("patience_s", patience, "nothing can happen in this time", "more than 0 seconds"),
        ):
            if not is_sound:
                raise UsageError(f"Settings.{name}", what, expected=expected, found=repr(getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What came out of a proof.

    Args:
        exact: Only if every bit of every twin is equal.
        seed: What chose the kills: with it the proof can be repeated.
        scratch: Folder of the twins; None where it is gone.
        lines: What was said, sentence by sentence.
        compared: Each comparison, by what was done.
        likely: What the difference most likely comes from, as elimination found it.
    """

    exact: bool
    seed: int
    scratch: Path | None
    lines: tuple[str, ...]
    compared: tuple[tuple[str, TwinComparison], ...]
    likely: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return the same as JSON-able data."""
        return {
            "exact": self.exact,
            "seed": self.seed,
            "scratch": str(self.scratch) if self.scratch is not None else None,
            "compared": [{"how": how, **plain(comparison)} for how, comparison in self.compared],
            "likely": list(self.likely),
        }


def prove(
    command: Sequence[str],
    settings: Settings | None = None,
    *,
    say: Callable[[str], None] = lambda _line: None,
    environment: Mapping[str, str] | None = None,
    start: Start = subprocess.Popen,
) -> Proof:
    """Train a command in a scratch folder, in peace and with kills, and compare every bit.

    It runs in the current folder, so that its data are found; every run that it opens lies in the scratch folder.

    Args:
        command: Any program whose loop uses `open_run`, in words: `["python", "train.py"]`.
        settings: How much is proved; None: 30 steps, 3 kills, none and two workers.
        say: Told each sentence as soon as it is known.
        environment: The environment of the trainings; None: that of this process.
        start: Starts a process, as `subprocess.Popen`.
    Returns:
        What came out, also where a bit differs.
    Raises:
        UsageError: There is nothing to compare: the command opens no run, fails, hangs or asks for input.
    """
    settings = settings or Settings()
    if not command or isinstance(command, str) or not all(isinstance(word, str) for word in command):
        raise UsageError(
            "unbroken prove",
            "the command is not a list of words",
            expected='words as ["python", "train.py"]',
            found=repr(command),
        )
    with ExitStack() as stack:
        if settings.keep:
            scratch = Path(tempfile.mkdtemp(prefix="unbroken-prove-"))
        else:
            folder = tempfile.TemporaryDirectory(prefix="unbroken-prove-", ignore_cleanup_errors=True)
            scratch = Path(stack.enter_context(folder))
        setup = Setup(
            command=tuple(command),
            scratch=scratch,
            until=settings.steps,
            save_every=save_interval(settings.steps),
            patience_s=settings.patience_s,
            environment=inherited() if environment is None else environment,
            start=start,
        )
        return _Proving(setup, settings, say).proof()


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class _Proving:
    """A proof while it is made: the twins so far, and what was said."""

    def __init__(self, setup: Setup, settings: Settings, say: Callable[[str], None]) -> None:
        self._setup, self._settings, self._tell = setup, settings, say
        self._lines: list[str] = []
        self._compared: list[tuple[str, TwinComparison]] = []
        self._trained = 0
        self._not_tracked: list[str] = []
        self._seed = random.SystemRandom().randrange(SEEDS) if settings.seed is None else settings.seed

    def proof(self) -> Proof:
        """Prove, or find out why not."""
        peace = self._train()
        require_trained(peace)
        steps = f"{peace.steps} steps"
        if len(peace.runs) > 1:
            self._say(f"the command opens {len(peace.runs)} runs, one after the other: all are compared")
        if peace.steps < self._settings.steps:
            self._say(f"the training is shorter than the {self._settings.steps} steps asked for: it ends after {steps}")
        lengths = [(run.name, run.reached) for run in peace.runs]
        every = save_interval(max(length for _, length in lengths))
        self._setup = replace(self._setup, save_every=every)  # by what it came to, not by what was asked for
        kills = choose_kills(lengths, self._settings.kills, random.Random(self._seed), every=every)
        self._say(f"{steps} in peace are done; now {in_words(kills)}, seed {self._seed}")
        killed = self._train(kills)
        if (facts := self._judged(peace, killed, steps)) is not None:
            return self._not_exact(facts, peace, killed, kills)
        if not any(run.is_fed for run in peace.runs):
            if self._settings.workers:
                self._say("the loop draws its own batches or reads a stream: numbers of loader workers are not tried")
        else:
            for workers in self._settings.workers:
                kill = choose_kills(lengths, 1, random.Random(self._seed + workers + 1), every=every)
                other = self._train(kill, workers=workers)
                if (facts := self._judged(peace, other, steps, f"{workers} loader workers and ")) is not None:
                    return self._not_exact(facts, peace, other, kill, workers=workers)
        return self._closed(exact=True)

    def _judged(self, peace: Twin, killed: Twin, steps: str, more: str = "") -> Evidence | None:
        """Compare, and say it; the first facts where not all is equal."""
        names, others = ([run.name for run in twin.runs] for twin in (peace, killed))
        if strange := [name for name in others if name not in names]:
            return Evidence(renamed=(names[0], strange[0]))
        if not killed.is_over:
            session = killed.last
            ended = "hangs" if session.hung else f"ends with exit code {session.code}"
            return Evidence(failed=f"{ended}:\n  {session.last_words()}", not_tracked=killed.not_tracked())
        how = f"with {more}{in_words(killed.kills)}"
        found = self._compare(how, peace, killed)
        if not killed.kills:
            self._say("no kill came before the end of the training, so nothing is proved of a resume")
            return Evidence(not_tracked=killed.not_tracked())
        if not killed.resumed:
            self._say(f"{how}: no session went on from a save, so nothing is proved of a resume")
            return Evidence(comparison=found, failed="began anew: it found no save", not_tracked=killed.not_tracked())
        self._say(f"{steps} in peace and {how}: {found.in_words()}")
        if found.equal:
            return None
        if found.first is not None:
            self._say(f"  first at {found.first}")
        for line in state_in_words(found):
            self._say(f"  {line}")
        return Evidence(comparison=found, not_tracked=killed.not_tracked())

    def _not_exact(
        self, facts: Evidence, peace: Twin, killed: Twin, kills: Sequence[Kill], *, workers: int | None = None
    ) -> Proof:
        """Find out by elimination, say what was tried and what it most likely is."""
        if facts.comparison is not None and not facts.failed:
            facts = self._eliminated(facts, peace, killed, kills, workers)
        causes = tuple(likely(facts))
        for cause in causes:
            self._say(f"most likely: {cause}" if cause == causes[0] else f"  also: {cause}")
        return self._closed(exact=False, causes=causes)

    def _eliminated(
        self, facts: Evidence, peace: Twin, killed: Twin, kills: Sequence[Kill], workers: int | None
    ) -> Evidence:
        known: dict[str, Any] = {"comparison": facts.comparison}
        again = self._train(workers=workers)
        known["itself"] = self._tried("in peace once more", peace, again, workers=workers)
        fed = any(run.is_fed for run in peace.runs)
        killed_again: Sequence[Kill] = () if not known["itself"] else kills
        if self._settings.hash_seeds:
            pair = [self._train(each, workers=workers, hash_seed=FIXED_HASH) for each in ((), killed_again)]
            known["fixed_hash"] = self._tried("both with PYTHONHASHSEED=0", *pair, workers=workers)
            if known["fixed_hash"]:  # is it the hash, or does it differ only now and then, or only the first time?
                before = peace if known["itself"] else again
                settled = self._train(killed_again, workers=workers)
                known["settled"] = self._tried("the same without it", before, settled, workers=workers)
        if fed and workers != 0 and not known.get("fixed_hash"):
            pair = [self._train(each, workers=0) for each in ((), killed_again)]
            # Where the loop has no workers anyway, or they make no difference, this one differs as well.
            known["no_workers"] = self._tried("both without loader workers", *pair)
        if known["itself"] and not known.get("fixed_hash") and not known.get("no_workers"):
            known |= self._by_signal(peace, killed, workers)
        return Evidence(**known, not_tracked=tuple(dict.fromkeys(self._not_tracked)))

    def _by_signal(self, peace: Twin, killed: Twin, workers: int | None) -> dict[str, tuple[str, ...]]:
        harmless, harmful = list[str](), list[str]()
        for signal in SIGNALS:
            alone = [kill for kill in killed.kills if kill.signal == signal]
            if not alone or len(alone) == len(killed.kills):
                continue
            twin = self._train(alone, workers=workers)
            same = self._tried(f"with {in_words(twin.kills)} alone", peace, twin, workers=workers)
            if twin.resumed:
                (harmless if same else harmful).append(signal)
        return {"harmless": tuple(harmless), "harmful": tuple(harmful)}

    def _tried(self, how: str, one: Twin, other: Twin, *, workers: int | None = None) -> bool:
        how += "" if workers is None else f" ({workers} loader workers)"  # None: the loop's own, or named in `how`
        found = self._compare(how, one, other)
        self._say(
            f"tried {how}: {found.in_words() if one.is_over and other.is_over else 'it does not come to its end'}"
        )
        return found.equal and one.is_over and other.is_over

    def _train(self, kills: Sequence[Kill] = (), *, workers: int | None = None, hash_seed: str = "") -> Twin:
        self._trained += 1
        twin = train(self._setup, f"twin-{self._trained}", kills, workers=workers, hash_seed=hash_seed)
        self._not_tracked += twin.not_tracked()
        return twin

    def _compare(self, how: str, one: Twin, other: Twin) -> TwinComparison:
        found = compare(one, other)
        self._compared.append((how, found))
        return found

    def _closed(self, *, exact: bool, causes: tuple[str, ...] = ()) -> Proof:
        kept = self._setup.scratch if self._settings.keep else None
        if kept is not None:
            self._say(f"all that was trained lies in {kept}")
        return Proof(
            exact=exact,
            seed=self._seed,
            scratch=kept,
            lines=tuple(self._lines),
            compared=tuple(self._compared),
            likely=causes,
        )

    def _say(self, line: str) -> None:
        self._lines.append(line)
        self._tell(line)
