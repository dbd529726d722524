"""Focal-SST: 3-D detection of boxes and divers in sonar point clouds, on any machine that runs torch.

A *frame* is one scan of the sonar: points with an intensity, and the boxes in it; a *detection* is a box with a class
and a score. A *recipe* (`recipes.py`) turns a command line into a job, without torch; a *task* (`task.py`) is what is
trained for it. *Metrics* are KITTI's average precision and recall; *results* are scores as text and by name, and what
an evaluation leaves as files. The *original* is the published code, an OpenPCDet fork: `original_states.py` and
`conversion.py` know its files.

The rooms inside: `config` (what may be said), `dataset` (from files to batches) and `model` (the network).
`evaluation.py` and `testing.py` use trained weights. `samples.py` and `scenery.py` make sample data, `demo.py` tells
the whole story with them.

Touches torch and files (data that was converted or made, results and pictures: a run's are written by `unbroken`).
"""
