"""The data room: from files of sonar echoes to batches of plain tensors, the same whatever was drawn before.

frame           one scan of the sonar by its id, such as `0130085`; a prefix (`a_`, `m_`, `c_`, `d_`) marks a copy that
                was augmented offline
sequence        frames of one dive, in order of time; a split never cuts through one
points          float32 (N, 5) in a file: x forward, y left, z up in metres, raw intensity, class (1 Box, 2 Diver,
                3 clutter, 4 water surface)
annotation      the names and boxes of one frame; infos are the annotations of one split, in one file
box             x, y, z of the centre, dx, dy, dz in metres, heading in radians counter-clockwise from +x,
                along dx
scene           points (x, y, z, encoded intensity) with their boxes, on the way through augmentation and masks
database        objects that were cut out of training frames, to be pasted into others
sample          what a loader hands on: one scene as tensors; a batch is several of them

Every random draw comes from the generator that is passed in, so sample `i` of an epoch is a function of
(seed, epoch, i) and never of the worker, the rank or the time at which it is loaded.

Touches torch (numpy alone in most files) and files (infos and the database of objects).
"""
