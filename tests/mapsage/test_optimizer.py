"""Parameter groups and AdamW: numbered as the real optimizer state, decayed and paced as the rules say."""

from __future__ import annotations

import pytest
import torch
from mmengine_files import nano, needs_files, structure_of, with_tensors
from torch import nn

from mapsage.loss import LossTerm, decode_losses, total_loss
from mapsage.model import SegformerHead
from mapsage.optimizer import build_adamw, parameter_groups
from unbroken.checkpoint.structure import weights
from unbroken.errors import ConfigError


def by_name(model: nn.Module, paramwise: dict) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, lr=1.0, weight_decay=0.5, paramwise=paramwise)
    return {names[id(group["params"][0])]: (group["lr"], group["weight_decay"]) for group in groups}


@needs_files
def test_the_numbers_of_the_real_optimizer_state_mean_the_same_parameters():
    saved = structure_of("iter_10.pth").tree["optimizer"]
    shapes = [tuple(p.shape) for p in build_adamw(nano(), lr=1e-3, weight_decay=0.01).param_groups[0]["params"]]
    assert saved["param_groups"][0]["params"] == list(range(len(shapes)))
    assert [saved["state"][i]["exp_avg"].shape for i in range(len(shapes))] == shapes


@needs_files
def test_training_goes_on_from_the_real_state():
    structure, model = structure_of("iter_10.pth"), nano()
    model.load_state_dict(with_tensors(structure, weights(structure)))
    optimizer = build_adamw(model, lr=1e-3, weight_decay=0.01)
    saved = with_tensors(structure, structure.tree["optimizer"])
    assert set(saved["param_groups"][0]) - {"initial_lr"} == set(optimizer.param_groups[0])
    optimizer.load_state_dict(saved)
    losses = decode_losses(
        model.train()(torch.randn(2, 3, 64, 64)), torch.randint(0, 8, (2, 64, 64)), (LossTerm(kind="ce"),)
    )
    total_loss(losses).backward()
    optimizer.step()
    assert {float(state["step"]) for state in optimizer.state.values()} == {11.0}
    assert optimizer.param_groups[0]["lr"] == 0.0006428571428571428


def test_without_rules_one_group_lists_frozen_parameters_too():
    head = SegformerHead(in_channels=(4,), in_index=(0,), channels=8, num_classes=2, norm_requires_grad=False)
    (group,) = parameter_groups(head, lr=0.1, weight_decay=0.01, paramwise=None)
    assert [id(p) for p in group["params"]] == [id(p) for p in head.parameters()]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)


def test_with_any_rule_each_trained_parameter_has_its_own_group_in_order():
    head = SegformerHead(in_channels=(4,), in_index=(0,), channels=8, num_classes=2, norm_requires_grad=False)
    trained = [name for name, parameter in head.named_parameters() if parameter.requires_grad]
    assert list(by_name(head, {"norm_decay_mult": 0.0})) == trained
    assert len(by_name(nano(), {"bias_lr_mult": 2.0})) == 109


def test_the_usual_segformer_recipe_multiplies_head_rate_and_spares_norms():
    rules = {"head": {"lr_mult": 10.0}, "norm": {"decay_mult": 0.0}, "pos_block": {"decay_mult": 0.0}}
    found = by_name(nano(), {"custom_keys": rules})
    assert found["decode_head.conv_seg.bias"] == (10.0, 0.5)
    assert found["backbone.layers.0.1.0.norm1.weight"] == (1.0, 0.0)
    assert found["backbone.layers.0.1.0.attn.norm.bias"] == (1.0, 0.0)
    assert found["backbone.layers.0.2.weight"] == (1.0, 0.5)  # a norm by kind, but not by name


def test_the_longest_key_wins_and_silences_all_other_rules():
    rules = {
        "custom_keys": {"conv_seg": {"lr_mult": 3.0}, "decode_head": {"lr_mult": 7.0}},
        "bias_lr_mult": 2.0,
        "bias_decay_mult": 0.0,
    }
    found = by_name(nano(), rules)
    assert found["decode_head.conv_seg.bias"] == (7.0, 0.5)
    assert found["backbone.layers.0.0.projection.bias"] == (2.0, 0.0)


def test_rules_by_kind_of_layer():
    rules = {"norm_decay_mult": 0.0, "bias_decay_mult": 0.1, "dwconv_decay_mult": 0.2, "bias_lr_mult": 2.0}
    found = by_name(nano(), rules)
    block = "backbone.layers.0.1.0"
    assert found[f"{block}.norm1.bias"] == (1.0, 0.0)  # a norm's bias is a norm's, in rate too
    assert found[f"{block}.ffn.layers.1.weight"] == (1.0, 0.5 * 0.2)
    assert found[f"{block}.ffn.layers.1.bias"] == (2.0, 0.5 * 0.1)
    assert found[f"{block}.ffn.layers.0.weight"] == (1.0, 0.5)
    assert found[f"{block}.attn.attn.in_proj_bias"] == (1.0, 0.5)  # not called plain `bias`


@pytest.mark.parametrize(
    "rules", [{"flat_decay_mult": 0.0}, {"custom_keys": {"head": {"lr": 1.0}}}, {"norm_decay": 0.0}]
)
def test_unknown_rules_are_refused(rules):
    with pytest.raises(ConfigError, match="not known"):
        parameter_groups(nano(), lr=1.0, weight_decay=0.0, paramwise=rules)
