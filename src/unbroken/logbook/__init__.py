"""The log of experiments that people read and write in: `experiments_log.txt`, one row for each run.

A *book* is such a file taken apart: rows of ours, and everything else, which is kept as it is. An *entry* is what a run
has to say for itself; its *words* are the settings that differ from the baseline's, and the result. What was written
last is *remembered* in the run's own folder, so that what a person wrote into a row is told from what we did.

Touches files (this one, and the memory of what was written into it).
"""
