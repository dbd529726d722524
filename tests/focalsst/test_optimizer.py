"""Groups that forget no parameter, and steps that are Adam's with everything decayed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from focalsst.optimizer import AdamDecayingAll, build_adam, parameter_groups
from focalsst.schedule import OneCycle, OneCycleSchedule

CYCLE = OneCycle(horizon=12, lr=3e-2)
DECAY = 0.1


class Net(nn.Module):
    """A small network with all that is easily forgotten: attention, own parameters, a part without a loss."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.position = nn.Parameter(torch.randn(1, 3, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.BatchNorm1d(4)
        self.layer = nn.LayerNorm(4)
        self.out = nn.Linear(4, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x_BNC: torch.Tensor) -> torch.Tensor:
        x_BNC = x_BNC + self.position
        x_BNC = x_BNC + self.attention(x_BNC, x_BNC, x_BNC, need_weights=False)[0]
        return self.out(self.layer(self.norm(x_BNC.mean(dim=1))))


def gradients(model: Net, seed: int) -> None:
    torch.manual_seed(seed)
    model.zero_grad(set_to_none=True)
    mse_loss(model(torch.randn(5, 3, 4)), torch.randn(5, 2)).backward()


def test_every_parameter_is_in_exactly_one_group_in_the_models_order():
    model = Net(0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    others, norms = ([names[id(p)] for p in group["params"]] for group in parameter_groups(model))
    assert norms == ["norm.weight", "norm.bias"]
    assert others == [name for name in names.values() if name not in norms]
    assert {"position", "attention.in_proj_weight", "attention.in_proj_bias", "layer.weight"} <= set(others)


def test_a_shared_parameter_comes_once_and_a_frozen_one_keeps_its_place():
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm2d(2), nn.SyncBatchNorm(2)])
    model[1].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    others, norms = (group["params"] for group in parameter_groups(model))
    assert [id(p) for p in others] == [id(model[0].weight), id(model[0].bias), id(model[1].bias)]
    assert len(norms) == 4


def test_there_are_always_two_groups():
    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2)):
        optimizer = build_adam(model, lr=0.1, weight_decay=0.0)
        assert len(optimizer.param_groups) == 2
        sum(p.sum() for p in model.parameters()).backward()
        optimizer.step()


def test_steps_are_those_of_a_wrapped_adam_that_decays_everything_first_bit_for_bit():
    """The wrapper: momentum and rate are set, every parameter is multiplied, Adam without decay steps."""
    ours, theirs = Net(0), Net(0)
    optimizer = build_adam(ours, lr=CYCLE.lr, weight_decay=DECAY)
    schedule = OneCycleSchedule(optimizer, CYCLE)
    inner = torch.optim.Adam(theirs.parameters(), betas=(0.95, 0.99), eps=1e-8)
    for step in range(15):
        gradients(ours, step)
        gradients(theirs, step)
        rate = CYCLE.lr_at(step)
        inner.param_groups[0] |= {"lr": rate, "betas": (CYCLE.momentum_at(step), 0.99)}
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.mul_(1 - DECAY * rate)
        inner.step()
        optimizer.step()
        schedule.step()
        for (name, found), expected in zip(ours.named_parameters(), theirs.parameters()):
            assert torch.equal(found, expected), (step, name)


def test_steps_are_those_of_the_formulas_spelled_out():
    model = Net(1).double()
    optimizer = build_adam(model, lr=CYCLE.lr, weight_decay=DECAY)
    schedule = OneCycleSchedule(optimizer, CYCLE)
    weights = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = copy.deepcopy(first)
    torch.set_default_dtype(torch.float64)
    try:
        for step in range(12):
            gradients(model, step)
            rate, beta1, beta2 = CYCLE.lr_at(step), CYCLE.momentum_at(step), 0.99
            for name, parameter in model.named_parameters():
                weights[name] *= 1 - DECAY * rate
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.numpy()
                first[name] = beta1 * first[name] + (1 - beta1) * gradient
                second[name] = beta2 * second[name] + (1 - beta2) * gradient**2
                mean = first[name] / (1 - beta1 ** (step + 1))
                spread = np.sqrt(second[name] / (1 - beta2 ** (step + 1)))
                weights[name] -= rate * mean / (spread + 1e-8)
            optimizer.step()
            schedule.step()
            for name, parameter in model.named_parameters():
                np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-9, atol=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_no_loss_reaches_shrinks_and_what_is_frozen_does_not():
    model = Net(2)
    model.out.bias.requires_grad_(False)
    bias, unused = model.out.bias.clone(), model.unused.weight.detach().clone()
    optimizer = build_adam(model, lr=0.1, weight_decay=0.5)
    gradients(model, 0)
    optimizer.step()
    assert torch.equal(model.unused.weight, unused * (1 - 0.1 * 0.5))
    assert torch.equal(model.out.bias, bias)
    assert model.unused.weight not in optimizer.state


def test_a_closure_gives_the_gradients_before_anything_is_decayed():
    ours, theirs = Net(3), Net(3)
    with_closure, without = (build_adam(net, lr=0.1, weight_decay=0.5) for net in (ours, theirs))

    def closure() -> float:
        gradients(ours, 0)
        return 7.0

    gradients(theirs, 0)
    without.step()
    assert with_closure.step(closure) == 7.0
    for found, expected in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("cut", [0, 1, 6])
def test_saved_and_loaded_it_goes_on_as_if_never_cut(cut):
    def trained(model: Net, steps: range, state: tuple | None) -> tuple:
        optimizer = build_adam(model, lr=CYCLE.lr, weight_decay=DECAY)
        schedule = OneCycleSchedule(optimizer, CYCLE)
        if state:
            model.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
            schedule.load_state_dict(state[2])
        for step in steps:
            gradients(model, step)
            optimizer.step()
            schedule.step()
        return copy.deepcopy((model.state_dict(), optimizer.state_dict(), schedule.state_dict()))

    whole = trained(Net(4), range(10), None)
    resumed = trained(Net(5), range(cut, 10), trained(Net(4), range(cut), None))
    assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])
    assert whole[1]["param_groups"] == resumed[1]["param_groups"]
    assert whole[2] == resumed[2]


def test_the_optimizer_is_torchs_own_kind():
    optimizer = build_adam(Net(6), lr=0.1, weight_decay=0.5)
    assert type(optimizer) is AdamDecayingAll and isinstance(optimizer, torch.optim.AdamW)
    assert {(group["betas"], group["eps"], group["weight_decay"]) for group in optimizer.param_groups} == {
        ((0.95, 0.99), 1e-8, 0.5)
    }
