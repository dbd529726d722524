"""The data room: from folders of aerial pictures to normalised batches, the same whatever was drawn before.

folder          pictures and masks below one root, in a fixed order; a `Concatenation` joins several
tile            one picture, with its mask once that is loaded, on its way through the transforms (BGR, HWC)
transform       a function of a tile, a generator of its own, and its parameters
pipeline        the ordered steps from two files to a sample
sample          what a loader hands on: image uint8 CHW (BGR), label int64 HW, and where it came from
preprocessor    turns a list of samples into one normalised batch (RGB, NCHW)

Every random draw comes from the generator that is passed in, so sample `i` of an epoch is a function of
(seed, epoch, i) and never of the worker, the rank or the time at which it is loaded.

Touches torch, and reads pictures.
"""
