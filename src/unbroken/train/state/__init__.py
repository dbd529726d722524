"""The state of a training: what is tracked, taken as plain values, put back to the last bit.

**tree**: dicts, lists, tuples, numbers, strings and tensors, which any reader can open safely. **parts**: the tracked
objects by name. **contents**: what stands in a checkpoint.

What no `state_dict` holds is state as well: an optimizer's moments in their type and by the names of parameters, modes
and attributes of modules, buffers, gradients that no step has used, and what optimizers and schedules were built with.
A state is checked as a whole before one of its parts is put back.

Read first: `parts.py` (checked, then restored), `contents.py` (what stands where in a checkpoint), `serialise.py` (the
only file that writes and reads one).

Touches torch.
"""
