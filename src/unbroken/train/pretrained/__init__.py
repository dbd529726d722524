"""Beginning with the weights of a file: read in any known form, copied where they fit, each tensor's fate said.

A *weights file* is what holds tensors by name, of any program. A tensor's *fate* is what becomes of it: loaded, by
class name, misfit (another shape), missing (the model's, and not in the file), unused (the file's, and not in the
model). *Class rows* are rows of a tensor that stand for classes: these are told by the names of the classes. The
*report* (`weights_report.py`) is all fates of a file, in words.

`weights_file.py` finds the tensors, `weights.py` compares and copies them, `adopting.py` does so for a session that
begins, and records it when its run opens.

Touches torch.
"""
