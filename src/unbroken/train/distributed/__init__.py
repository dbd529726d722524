"""One training on several processes, each of which computes a share of every batch.

A *rank* is one of them; the *world size* is how many there are. Rank 0 leads: it looks, decides, locks, writes and
prints. The others *follow*: they do the same work with a disk that keeps nothing. A *shard* is a part of a micro-batch
that is computed as a whole, whichever process does it: the gradients of a step are those of its shards, added in their
order.

`world.py` is what they tell each other, `following.py` how the others take part in what rank 0 decided, `shards.py`
how an application's step adds up, `replicas.py` what a loop with DistributedDataParallel is given and asked,
`agreement.py` what all say of a step, `shared_pass.py` how they share an evaluation out. `agent.py` starts them. Which
samples are whose says `data/sharing.py`.
Where each process has a part of the weights (FSDP2), all save together (`sharded_saver.py`, `sharded_files.py`).

Touches torch, files (of sharded checkpoints) and processes (those of the training, and their messages).
"""
