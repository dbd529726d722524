"""MapSage: semantic segmentation of aerial images with SegFormer, trained through interruptions.

A *tile* is one picture, with a *mask* that says a class for each pixel; 255 is no class. A *recipe* (`recipes.py`)
turns a command line into a job, without torch; a *task* (`task.py`) is what is trained for it. A *map* is what the
network says of a picture, `predict.py` makes one of any size; *metrics* count pixels and divide at the end.

The rooms inside: `config` (what may be said), `dataset` (from files to batches), `model` (the network) and `tools` (of
trained weights). `foreign.py` and `mmengine_states.py` know MMEngine's files. `samples.py` and `scenery.py` paint
sample data, `demo.py` tells the whole story with them.

Touches torch and files (sample data and pictures: a run's are written by `unbroken`).
"""
