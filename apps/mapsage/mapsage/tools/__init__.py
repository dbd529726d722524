"""What is done with trained weights: `scripts/test.py` judges them, `scripts/predict.py` uses them.

*Trained* weights are a checkpoint of any origin: a file, the folder of a run, or `best` or `latest` of the config's own
run. A *tool* takes a config and such a checkpoint, loads every tensor of the network or refuses, and changes nothing of
a run. What it writes lies in the folder that was named for it, in files that are whole or not there.

Touches torch and files (what was asked for: label images, overlays, scores).
"""
