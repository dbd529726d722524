"""What a session says and writes down of its steps: at the terminal, in its log, in its record, for TensorBoard.

A *report* is one finished step with its values and times. The *recorder* writes it down where it belongs, and compares
a step that is done again with what was recorded of it before (a *replay*). The *log* is what a session says, line by
line, to the *console* (a bar, or plain lines) and its text file. *Curves* are the event files of TensorBoard; *hparams*
what its tab of settings shows. A *probe* is a few of the weights as one number.

What nobody can read any more (a terminal that is gone, a disk that is full for a while) never ends a training here.

Touches torch, terminal and files (of a session: its log, its scalars, its event file).
"""
