"""A saved state of an optimizer or a scaler holds the old config: what the new one says counts."""

from __future__ import annotations

import torch

from unbroken.train import ConfiguredScaler, GroupSettings


def optimizer(**settings: float) -> torch.optim.AdamW:
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    return torch.optim.AdamW([{"params": [parameters[0]]}, {"params": [parameters[1]], **settings}], lr=0.1)


def test_settings_of_each_group_are_put_back_and_what_a_schedule_moves_is_left() -> None:
    saved, here = optimizer(weight_decay=0.5), optimizer(weight_decay=0.25)
    settings = GroupSettings(here, moved=("betas",))
    saved.param_groups[0] |= {"lr": 0.7, "betas": [0.5, 0.6], "eps": 1e-3}
    here.load_state_dict(saved.state_dict())
    assert settings.put_back() == ["eps 0.001 -> 1e-08", "weight_decay 0.5 -> 0.25"]
    assert [group["weight_decay"] for group in here.param_groups] == [0.01, 0.25]
    assert (here.param_groups[0]["lr"], here.param_groups[0]["betas"]) == (0.7, [0.5, 0.6])
    assert settings.put_back() == []


def test_a_pair_that_became_a_list_in_a_file_is_no_change_and_is_a_pair_again() -> None:
    here = optimizer()
    settings = GroupSettings(here)
    here.param_groups[0]["betas"] = [0.9, 0.999]
    assert settings.put_back() == []
    assert here.param_groups[0]["betas"] == (0.9, 0.999)


def overflown(scaler: ConfiguredScaler) -> ConfiguredScaler:
    weight = torch.nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([weight], lr=0.1)
    scaler.scale(weight.sum() * float("inf")).backward()
    scaler.step(sgd)
    scaler.update()
    return scaler


def test_a_dynamic_scale_goes_on_where_it_was_unless_the_config_gives_another_first_one() -> None:
    state = overflown(ConfiguredScaler("cpu", init_scale=64.0)).state_dict()
    same, other, static = ConfiguredScaler("cpu", init_scale=64.0), ConfiguredScaler("cpu", init_scale=128.0), None
    for scaler in (same, other):
        scaler.load_state_dict(state)
    static = ConfiguredScaler("cpu", init_scale=64.0, static=True)
    static.load_state_dict(state)
    assert [each.get_scale() for each in (same, other, static)] == [32.0, 128.0, 64.0]


def test_a_static_scale_stays_whatever_overflows() -> None:
    assert overflown(ConfiguredScaler("cpu", init_scale=64.0, static=True)).get_scale() == 64.0


def test_the_state_of_a_scaler_of_torch_is_gone_on_with() -> None:
    torchs = torch.amp.GradScaler("cpu", init_scale=8.0)
    ours = ConfiguredScaler("cpu", init_scale=64.0)
    ours.load_state_dict(torchs.state_dict())
    assert ours.get_scale() == 8.0
