"""Where batches come from.

A *source* is what a loop gives to `run.batches`. An *indexed* source has samples with numbers: a data set, or a ready
`DataLoader` of one, whose settings are taken over and whose work our own workers do. Which of them come at which
position says its *order*; where that is a sampler of the user's, its indices are *drawn* per epoch, under the epoch's
name. A *stream* has no numbers: its own state leads to the position, or its beginning is passed over again, batch for
batch.

The *feed* is the open end: `feed.py` (and `stream.py`) hands a run its next batch. `order.py` says which samples come
(pure), `workers.py` and `loader.py` read them, `rng.py` and `random_holders.py` name the randomness that each is read
with.

Touches torch and processes (loader workers).
"""
