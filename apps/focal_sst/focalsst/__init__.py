"""Focal-SST: 3-D detection of boxes and divers in sonar point clouds, on any machine that runs torch.

A *frame* is one scan of the sonar: points with an intensity, and the boxes in it; a *detection* is a box with a class
and a score. A *recipe* (`recipes.py`) turns a command line into a job, without torch; a *task* (`task.py`) is what is
trained for it. *Metrics* are KITTI's average precision and recall; a *report* is scores as text and by name, *results*
what an evaluation leaves as files. The *original* is the published code, an OpenPCDet fork: `original_states.py`,
`pickled.py` and `conversion.py` know its files, `earlier_names.py` those of our own first checkpoints.

The rooms inside: `config` (what may be said), `dataset` (from files to batches) and `model` (the network). `predict.py`
and `testing.py` use trained weights. `samples.py`, `scenery.py` and `scene_statistics.py` make sample data, `demo.py`
tells the whole story with them.

Touches torch, files (data that was converted or made, results and pictures: a run's are written by `unbroken`),
environment and processes (the demo starts the trainings that it kills).
"""
