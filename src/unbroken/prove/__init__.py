"""The twin test for anybody's training: is it the same to the last bit when it is killed and resumed?

A *twin* is the same command once more, in a scratch folder: in peace, or with *kills* (SIGKILL and SIGTERM at seeded
steps, at any instant of one). Two twins are *compared*: every logged value of every step, every tensor of the last
state. Where they differ, further twins find out by *elimination* what it most likely is. Every sentence that is said
was measured in this proof.

Touches processes (the twins) and files (in the scratch folder).
"""

from unbroken.prove.proof import Proof, Settings, prove

__all__ = ["Proof", "Settings", "prove"]
