"""What stands on PATH as `sbatch`, `srun`, `scontrol` and `python`: it asks the cluster (`slurm.py`), without imports.

The cluster signals what it started by itself, as the daemons of Slurm do; so this process hears nothing and waits.
"""

import json
import os
import signal
import socket
import sys

for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
command = os.path.basename(sys.argv[1])
asked = {
    "command": command,
    "words": sys.argv[2:],
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "input": sys.stdin.read() if command == "sbatch" else "",
}
with socket.socket(socket.AF_UNIX) as cluster:
    cluster.connect(os.environ["STAND_IN"])
    socket.send_fds(cluster, [b"."], [1, 2])
    cluster.sendall(json.dumps(asked).encode())
    cluster.shutdown(socket.SHUT_WR)
    answer = json.loads(b"".join(iter(lambda: cluster.recv(65536), b"")))
print(answer["out"], end="")
print(answer["err"], end="", file=sys.stderr)
sys.exit(answer["code"])
