"""A session that begins with the weights of a file: they are copied before its run opens, and recorded when it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unbroken.errors import UsageError
from unbroken.journal import Journal
from unbroken.launch import Start
from unbroken.train.pretrained.weights import fit_weights
from unbroken.train.pretrained.weights_file import ClassRows, WeightsFile, read_weights
from unbroken.train.pretrained.weights_report import WeightsReport, as_lines, beside_line


class Adopting:
    """The file that a run is fine-tuned from; with no file, nothing of this happens.

    `rename` gives the file's names as the model spells them, `class_rows` says which rows are classes.
    """

    def __init__(self, path: Path | None, start: Start) -> None:
        self.rename: Callable[[str], str] = str
        self.class_rows: ClassRows | None = None
        self._path, self._start = path, start
        self._taken: tuple[WeightsFile, WeightsReport] | None = None

    def take(self, tracked: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """Copy the weights if the model is among what is tracked here, and say what became of each."""
        if self._path is None or "model" not in tracked:
            return
        file = read_weights(self._path, self.class_rows, weights_key=self._start.weights_key)
        strict = self._start.strict
        report = _fit(tracked["model"], file, self.rename, self.class_rows, strict=strict, all_used=strict)
        self._taken = file, report
        say(f"load weights from {self._path}")
        for line in (*as_lines(report), *beside_line(file.beside)):
            say(f"  {line}")

    def require_taken(self) -> None:
        """Raise where a loop tracks no model: the training would begin without the weights that were asked for."""
        if self._path is not None and self._taken is None:
            raise UsageError(
                "run.track",
                f"nothing was given that the weights of {self._path} could go into",
                expected="run.track(model=...)",
                do="Track the network under the name `model`, before the loop.",
            )

    def record(self, journal: Journal) -> None:
        """Write what became of every tensor into the run's journal."""
        if self._taken is not None:
            file, report = self._taken
            journal.write("weights", file=str(file.path), beside=list(file.beside), **report.as_data())


def adopt_weights(
    model: Any,
    path: Path,
    rename: Callable[[str], str] = str,
    *,
    strict: bool = False,
    all_used: bool = False,
    class_rows: ClassRows | None = None,
    weights_key: str = "",
) -> WeightsReport:
    """Copy the weights of any checkpoint into a model, those that fit; with `strict`, all or none."""
    file = read_weights(path, class_rows, weights_key=weights_key)
    return _fit(model, file, rename, class_rows, strict=strict, all_used=all_used)


def _fit(
    model: Any,
    file: WeightsFile,
    rename: Callable[[str], str],
    class_rows: ClassRows | None,
    *,
    strict: bool,
    all_used: bool,
) -> WeightsReport:
    return fit_weights(
        model,
        file.tensors,
        where=file.path,
        rename=rename,
        strict=strict,
        all_used=all_used,
        class_rows=class_rows,
        classes=file.classes,
    )
