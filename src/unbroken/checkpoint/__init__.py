"""Checkpoint files: what is inside, whether it is whole, how one is written, which may go.

A *checkpoint* is a file from which training continues exactly; a *weights file* (`best_*`) holds weights and facts
about them only. The *structure* of a file is everything but the tensors' numbers, read without torch and without
executing its pickle. A *manifest* is a small file beside the run's other records that says what was written: size,
digest, step and the *save id* that is also inside the file, so that a manifest is never taken for that of a later
file of the same name. *Verified* means: the bytes on disk are the bytes that were written.

Read first: `structure.py` (what is in a file), `store.py` (the order in which a save is written), `retention.py` (pure:
what may go), `removal.py` (how it goes).

Touches files (a run's checkpoints, its manifests and the link to the newest), and looks at those of any program.
"""

# The number inside every file of ours; a file with a larger one than FORMAT is refused, not guessed at.
PLAIN_FORMAT = 1  # of a weights file
FORMAT = 3  # of a checkpoint; 1, and 2 where an optimizer is in the groups of another program, had states of generators

NEVER_FEWER_THAN = 2  # verified checkpoints of a run stay

__all__ = ["FORMAT", "NEVER_FEWER_THAN", "PLAIN_FORMAT"]
