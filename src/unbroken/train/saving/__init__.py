"""Writing checkpoints: when one is due, whether there is room, what is done when it fails, and what follows one.

A save is *due* by steps, epochs or time, and *beside* where a thread writes a copy of the state while the training goes
on. *Room* is what the disk, or a quota, still holds, against what saves will take. *Patience* is how long a training
goes on without a save that succeeds, and when one is tried again. A *backup* follows a save, in a thread of its own.

The file itself, its manifest, the journal and what may go after it are the work of `unbroken.checkpoint`, in an order
that is said in its `store.py`.

Touches torch; files through `unbroken.checkpoint` and `unbroken.keep` alone.
"""
