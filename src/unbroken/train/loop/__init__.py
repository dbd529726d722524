"""The open run, as a training loop sees it.

A `TrainingRun` is what a loop holds: it tracks, hands out batches and ends each step. Its *lifecycle* reaches from the
first change of the run's folder, which comes with the first batch, to the last. In between there is a *session*, with
everything that is written: it records, saves and stops at *boundaries*, between two steps, and *holds* the run's files
and lock until the last of them is closed.

Read first: `training_run.py`, then `session.py`. What else a loop may ask at any time is `RunControl`
(`evaluation.py`); what it holds and did not track is named by `untracked.py`.

Touches torch (all else through the rooms beside it and below).
"""
