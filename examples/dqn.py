"""Deep Q-learning on an environment of its own: a replay buffer, epsilon, a target network, an update every 4 moves."""

import argparse
import copy
import random
from collections import deque

import numpy as np
import torch
from torch import nn

from unbroken.train import open_run


class Pole:
    """A pole on a cart, in a wind that is drawn from the environment's own generator. Its state is tracked."""

    def __init__(self):
        self.rng = np.random.default_rng(3)
        self.reset()

    def reset(self):
        self.state = self.rng.uniform(-0.05, 0.05, 2)

    def step(self, action):
        angle, speed = self.state
        speed += 0.05 * (10.0 * np.sin(angle) + (3.0 if action else -3.0) + self.rng.normal())
        self.state = np.array([angle + 0.05 * speed, speed])
        return torch.tensor(self.state, dtype=torch.float32), 1.0, bool(abs(self.state[0]) > 0.3)

    def state_dict(self):
        return {"state": self.state, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, saved):
        self.state, self.rng.bit_generator.state = saved["state"], saved["rng"]


def main(args):
    with open_run(args.out, tag="dqn", config=args, effects={"out": "free", "steps": "schedule"}, save_every=10) as run:
        policy = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
        target = copy.deepcopy(policy)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
        env, memory = Pole(), deque(maxlen=200)
        seen = {"moves": 0, "episodes": 0, "epsilon": 1.0}
        run.track(policy=policy, target=target, optimizer=optimizer, env=env, memory=memory, seen=seen)
        for _ in run.steps(args.steps):
            old = torch.tensor(env.state, dtype=torch.float32)
            explores = torch.rand(()) < seen["epsilon"]
            action = int(torch.randint(2, ())) if explores else int(policy(old).argmax())
            new, reward, ended = env.step(action)
            memory.append(torch.cat([old, torch.tensor([float(action), reward, float(ended)]), new]))
            seen["moves"], seen["epsilon"] = seen["moves"] + 1, max(0.05, 0.98 * seen["epsilon"])
            run.log(epsilon=seen["epsilon"], episodes=seen["episodes"])
            if ended:
                seen["episodes"] += 1
                env.reset()
            if len(memory) < 16 or seen["moves"] % 4:
                continue  # no step of the optimizer yet: these moves belong to the next one
            moves = torch.stack(random.sample(memory, 16))
            state, action, reward, ended, after = moves.split([2, 1, 1, 1, 2], dim=1)
            value = policy(state).gather(1, action.long())
            with torch.no_grad():
                expected = reward + 0.95 * (1 - ended) * target(after).max(1, keepdim=True).values
            loss = nn.functional.smooth_l1_loss(value, expected)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
            if (run.step + 1) % 10 == 0:
                target.load_state_dict(policy.state_dict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    parser.add_argument("--steps", type=int, default=30)
    main(parser.parse_args())
