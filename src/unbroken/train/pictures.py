"""Sample predictions: drawn by the task after an evaluation, kept beside the run and shown by TensorBoard.

They are a help for the eye: whatever goes wrong with them is said once, and the training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from unbroken.errors import Refused
from unbroken.run.predictions import drop_pictures, evaluations_in, file_names, kept_steps, write_pictures
from unbroken.storage import explained
from unbroken.train.loop.session import Session
from unbroken.train.progress import Progress
from unbroken.train.record.event_records import png_size

MOST = 12  # pictures of one evaluation
LONGEST_SIDE_PX = 1024
MOST_BYTES = 2 << 20  # of one
MOST_SHOWN_BYTES = 64 << 20  # of all that one session puts into its event file, which only grows

Draw = Callable[[Progress], Mapping[str, bytes]]


class Gallery:
    """The pictures of one session; `draw` may be None, then there are none."""

    def __init__(self, draw: Draw | None, say: Callable[[str], None]) -> None:
        self._draw, self._say = draw, say
        self._warned = False
        self._shown_bytes = 0

    def drawn(self, progress: Progress) -> dict[str, bytes]:
        """What the present weights predict, by names fit for files; what is no small PNG is left out."""
        if self._draw is None:
            return {}
        try:
            found = dict(self._draw(progress))
            sound = {str(name): data for name, data in list(found.items())[:MOST] if _require_small(name, data)}
        except Exception as error:  # noqa: BLE001 - nobody loses a training to a font that is missing
            self._warn(f"{type(error).__name__}: {error}")
            return {}
        return dict(zip(file_names(sound), sound.values(), strict=True))

    def keep(self, session: Session, step: int, pictures: Mapping[str, bytes]) -> None:
        """Write the pictures of an evaluation that is about to be recorded, and show them with it."""
        if not pictures:
            return
        with self._explained(session) as folder:
            write_pictures(session.run.files.disk, folder, step, pictures)
        self._shown_bytes += sum(map(len, pictures.values()))
        if self._shown_bytes <= MOST_SHOWN_BYTES:
            session.recorder.show_pictures(pictures)

    def tidy(self, session: Session, progress: Progress) -> None:
        """Remove the pictures of evaluations that are neither the best nor among the last."""
        if self._draw is None:
            return
        best = progress.best.step if progress.best else None
        with self._explained(session) as folder:
            keep = kept_steps(evaluations_in(folder), now=progress.step, best=best)
            drop_pictures(session.run.files.disk, folder, keep=keep)

    @contextmanager
    def _explained(self, session: Session) -> Iterator[Path]:
        run = session.run
        folder = run.directory / run.files.layout.predictions
        try:
            with explained(run.files.disk, folder, "the pictures of predictions cannot be kept in order"):
                yield folder
        except Refused as refusal:
            self._warn(str(refusal))

    def _warn(self, words: str) -> None:
        if not self._warned:
            self._say(f"warning: no pictures of predictions ({words[:300]}); the training goes on, this is said once")
        self._warned = True


def spread(size: int, count: int) -> Sequence[int]:
    """Choose a few samples to look at, from the first to the last, always the same ones.

    Args:
        size: How many there are.
        count: How many to choose, at most.
    Returns:
        Their numbers, in order.
    Example:
        >>> from unbroken.train import spread
        >>> spread(101, 3)
        [0, 50, 100]
    """
    count = min(size, count)
    return [round(place * (size - 1) / max(count - 1, 1)) for place in range(count)]


def _require_small(name: str, data: bytes) -> bool:
    width, height = png_size(data)
    if max(width, height) > LONGEST_SIDE_PX or len(data) > MOST_BYTES:
        raise ValueError(f"{name} is too large: {width} x {height} px, {len(data):,} bytes")
    return True
