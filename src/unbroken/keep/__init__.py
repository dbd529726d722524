"""What is done with a run as a whole: packed into one file, backed up, restored, made smaller.

An *inventory* names every file of a run as it was when it was listed. *Sync* brings files from one folder into another:
compared by digest, copied and read back. A *mirror* is a backup: a folder that is itself a run, brought up to date so;
its list remembers what the copies held. A *parcel* is what goes into one *packed* file, with a packing list, by how
much each file is needed. A *destination* is a place that is owned while a run is built beside it. *Pruning* says of
each checkpoint whether it stays, and why, before one goes. The *archive* of a run holds histories that were ended, each
of which can be brought back.

Read first: `sync.py`, on which all of it stands.

Touches files (those of runs, and of the places that runs are brought to; every byte is read back before it counts).
"""
