"""The same job in the next Kaggle session: it goes on from a checkpoint among the session's inputs.

在新的 Kaggle 会话中继续同一任务：从挂载的检查点恢复。

It must be the job that wrote the checkpoint: a learning rate, class count or pipeline changed here is found and
said before anything is touched. 必须与写出检查点的任务一致；任何改动都会在恢复之前指出。
"""

_base_ = "./segformer_b2_earthvqa_40k.py"

# Where the checkpoint lies: `find /kaggle/input -name "iter_*.pth"`. 改为实际的检查点路径
load_from = "/kaggle/input/temp-8000tier/iter_8000.pth"
resume = True
