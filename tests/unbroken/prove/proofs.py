"""Proving a script of `faults`, in a folder of its own, by processes that are cheap to start."""

import shutil
from functools import partial
from pathlib import Path

from tests.processes import Popen, environment, python
from unbroken.prove import Proof, Settings, prove

HERE = Path(__file__).parent


def put(script: str, folder: Path) -> list[str]:
    """Put a script where a user would have it; the command that starts it."""
    shutil.copy(HERE / "planted.py", folder)
    shutil.copy(HERE / "faults" / f"{script}.py", folder / "loop.py")
    return python(folder / "loop.py")


def proof_of(script: str, folder: Path, *, kills: int = 1, seed: int = 3, by_hash: bool = False, **more) -> Proof:
    """Prove a script over a few steps."""
    settings = Settings(
        kills=kills, seed=seed, hash_seeds=by_hash, **{"steps": 6 if kills == 1 else 10, "workers": (), **more}
    )
    return prove(put(script, folder), settings, environment=environment(), start=partial(Popen, cwd=folder))
