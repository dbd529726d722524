"""What is done with trained weights: `scripts/test.py` judges them, `scripts/predict.py` uses them.

Both take a config and a checkpoint of any origin: a file, the folder of a run, or `best` or `latest` of the config's
own run. Both load every tensor of the network or refuse, and neither changes anything of a run.
"""
