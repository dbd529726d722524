"""What is done with a run as a whole: packed into one file, backed up, brought back, made smaller.

An *inventory* names every file of a run with how much it is needed. A *parcel* is what of it goes into one *packed*
file, with a packing list. A *mirror* is a backup: a folder that is itself a run, brought up to date file by file, each
read back; its list remembers what the copies held. *Pruning* says of each checkpoint whether it stays, and why, before
one goes.
"""
