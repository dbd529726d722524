"""`scripts/predict.py CONFIG CHECKPOINT PICTURES --out DIR`: the labels of pictures that nobody labelled.

`DIR/labels/<name>.png` holds class numbers (0 is the first class), `DIR/overlays/<name>.png` the picture under the
classes' colours, and `DIR/predictions.json` says which weights and classes they are of. Each PNG carries a digest of
that and of its picture: so what is done is known again, and what is anything else is not replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from mapsage.config import MapSageConfig
from mapsage.dataset.folders import unreadable
from mapsage.dataset.pipeline import Pipeline
from mapsage.dataset.reading import MOST_BYTES, read_image
from mapsage.picture import overlay
from mapsage.tools.trained import Trained, add_options, console, load, note_in, write_picture
from unbroken import Disk, OptionParser, durable_folder, is_ordinary, read_json, read_whole, require_local, write_json
from unbroken.config import canonical
from unbroken.errors import DamagedFile, Refused, UnbrokenError, UsageError

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
FORMAT: Final = "mapsage predictions 1"
RECORD, LABELS, OVERLAYS = "predictions.json", "labels", "overlays"
NOTE: Final = "mapsage"  # the text of a PNG that holds its digest


def parser() -> OptionParser:
    """The options of `scripts/predict.py`."""
    found = OptionParser(
        prog="scripts/predict.py",
        description="Write the labels of pictures, of any size, and the pictures under their colours. The same command "
        "goes on where it was ended; what was done is left out.",
    )
    add_options(found)
    found.add_argument("pictures", type=Path, nargs="+", metavar="PICTURES", help="pictures, or folders of pictures")
    found.add_argument("--out", type=Path, required=True, metavar="DIR", help="where labels/ and overlays/ are written")
    found.add_argument("--work-dir", type=Path, metavar="DIR", help="whose best or latest it is, as for train.py")
    found.add_argument("--overwrite", action="store_true", help="replace what is there and is of something else")
    return found


def usage() -> str:
    """The help text."""
    return parser().format_help()


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code, that of damage if a picture is left out."""
    options = parser().parse_args(list(arguments))
    say = console()
    require_local(options.out, is_folder=True)
    pictures = listed(options.pictures, options.out)
    trained = load(options, say, work_dir=options.work_dir)
    writer = _Writer(trained, options.out, overwrite=options.overwrite)
    writer.begin()
    left: list[UnbrokenError] = []
    done: Counter[str] = Counter()
    for number, picture in enumerate(pictures, start=1):
        try:
            what = writer.predict(picture)
        except (DamagedFile, Refused) as error:
            left.append(error)
            what = f"left out: {error}"
        done[what.partition(":")[0]] += 1
        say(f"[{number}/{len(pictures)}] {picture.path}: {what}")
    before, missed = done["done before"], len(left)
    words = [f"{done.total() - before - missed} predicted"]
    words += [f"{before} done before and left as they are"] if before else []
    words += [f"{missed} left out, named above"] if missed else []
    say(f"{', '.join(words)}: {options.out / LABELS}, {options.out / OVERLAYS}, {options.out / RECORD}")
    return max((error.exit_code for error in left), default=0)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file, and the name without suffix that its results have."""

    path: Path
    name: str


def listed(named: Sequence[Path], out: Path) -> list[Picture]:
    """The pictures that are named, and those in the folders that are, in order; what lies in `out` is no picture.

    Where two files differ in the suffix alone, their results keep it: `a.jpg.png` and `a.tif.png`.
    """
    found: list[tuple[Path, str]] = []
    for path in named:
        if path.is_dir():
            inside = list(_below(path, out.resolve()))
            if not inside:
                what = "there is no picture in this folder"
                raise UsageError(path, what, expected=f"files ending in {' '.join(SUFFIXES)}")
            found += [(each, each.relative_to(path).as_posix()) for each in inside]
        elif is_ordinary(path):
            found.append((path, path.name))
        else:
            require_local(path)
            raise UsageError(path, "there is no such picture or folder", do="Check the path.")
    stems = Counter(name.rpartition(".")[0].casefold() for _, name in found)
    pictures = [
        Picture(path=path, name=name if stems[stem.casefold()] > 1 else stem)
        for path, name in found
        for stem in [name.rpartition(".")[0]]
    ]
    names = Counter(each.name.casefold() for each in pictures)
    if twice := [each for each in pictures if names[each.name.casefold()] > 1]:
        what = "two pictures would have their results under one name"
        raise UsageError(
            twice[0].path, what, found=twice[1].path, do="Predict their folders apart, each with its --out."
        )
    return pictures


def _below(folder: Path, out: Path) -> Iterator[Path]:
    """The pictures of a folder and its subfolders by name, behind links too, each folder once."""
    seen: set[Path] = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        here = Path(where).resolve()
        if here in seen or here == out:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(where, name)


class _Writer:
    """Predicts pictures into one folder, all with one network."""

    def __init__(self, trained: Trained, out: Path, *, overwrite: bool) -> None:
        self._trained, self._out, self._overwrite = trained, out, overwrite
        self._pipeline = Pipeline(_steps(trained.config))
        self._made_by = _made_by(trained)
        self._digest = hashlib.sha256(json.dumps(self._made_by, sort_keys=True).encode()).hexdigest()

    def begin(self) -> None:
        """Write the record, or see that what is there is of the same network and classes."""
        path = self._out / RECORD
        if self._overwrite or not path.exists():
            durable_folder(Disk(), self._out)
            write_json(Disk(), path, {"format": FORMAT, "checkpoint": str(self._trained.file.path), **self._made_by})
            return
        try:
            known = read_json(path)
        except (OSError, ValueError) as fault:
            known = {"format": f"not readable ({fault})"}
        known = known if isinstance(known, dict) else {}
        wanted: Mapping[str, Any] = {"format": FORMAT, **json.loads(json.dumps(self._made_by))}
        different = [key for key, value in wanted.items() if known.get(key) != value]
        if different:
            raise Refused(
                path,
                "this folder holds predictions of something else",
                expected=f"the same {', '.join(different)}",
                found=f"those of {known.get('checkpoint', 'an unknown file')}",
                do="Name another --out, or replace them with --overwrite.",
            )

    def predict(self, picture: Picture) -> str:
        """Write overlay and labels, the labels last; returns what was done, in a word or two."""
        labels, coloured = (self._out / folder / f"{picture.name}.png" for folder in (LABELS, OVERLAYS))
        try:
            content = read_whole(picture.path, most_bytes=MOST_BYTES)
        except OSError as fault:
            raise DamagedFile(picture.path, "the file cannot be read", found=fault.strerror or fault) from fault
        digest = hashlib.sha256(self._digest.encode() + content).hexdigest()  # of it, and of what predicts it
        there = [note_in(path, NOTE) for path in (coloured, labels)]
        if there == [digest, digest]:
            return "done before"
        if not self._overwrite and (
            other := [p for p, note in zip((coloured, labels), there) if note not in (None, digest)]
        ):
            what = "a file of something else has this name, and is not replaced"
            raise Refused(other[0], what, do="Move it away, or replace it with --overwrite.")
        image_HW3 = read_image(picture.path)[..., ::-1]
        sample = self._pipeline.run(picture.path, None, np.random.default_rng(0), name=picture.name)
        labels_HW = self._trained.predict(sample).numpy()
        notes = {NOTE: digest}
        write_picture(coloured, overlay(image_HW3, labels_HW, self._trained.palette), notes)
        write_picture(labels, Image.fromarray(labels_HW.astype(np.uint8)), notes)
        return f"{labels_HW.shape[1]}x{labels_HW.shape[0]} px"


def _steps(config: MapSageConfig) -> list[dict[str, Any]]:
    """The pipeline that test or validation pictures go through, without their masks."""
    loader = config.test_dataloader or config.val_dataloader
    if loader is None:
        return [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]
    return [canonical(step) for step in loader.datasets[0].pipeline if step.type != "LoadAnnotations"]


def _made_by(trained: Trained) -> dict[str, Any]:
    """All that a prediction depends on besides the picture, and what its numbers and colours mean."""
    weights = hashlib.sha256()
    for name, tensor in trained.model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        weights.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {
        "weights_sha256": weights.hexdigest(),
        "classes": list(trained.classes),
        "palette": [list(colour) for colour in trained.palette],
        "test_cfg": canonical(trained.config.model.test_cfg),
        "pipeline": _steps(trained.config),
        "normalisation": canonical(trained.config.model.data_preprocessor),
    }
