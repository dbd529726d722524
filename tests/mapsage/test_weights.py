"""Fine-tuning: what fits is copied, what does not is named, and nothing is copied before all is checked."""

from __future__ import annotations

import pytest
import torch
from mmengine_files import nano, needs_files, structure_of, with_tensors

from mapsage.model import EncoderDecoder, segmentor_name
from unbroken.checkpoint.structure import weights
from unbroken.errors import DamagedFile, Refused
from unbroken.train.pretrained.weights import compare_weights, fit_weights
from unbroken.train.pretrained.weights_report import WeightsReport, as_lines


def fit(model: EncoderDecoder, state: dict[str, torch.Tensor]) -> WeightsReport:
    return fit_weights(model, state, where="weights.pth", rename=segmentor_name)


def filled(value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in nano().state_dict().items()}


def test_a_file_of_the_same_network_loads_completely():
    model = nano()
    report = fit(model, filled(2))
    assert report.complete
    assert report.names("loaded") == tuple(model.state_dict())
    assert all((tensor == 2).all() for tensor in model.state_dict().values())
    assert as_lines(report) == ["124 of 124 tensors loaded"]


def test_another_number_of_classes_costs_the_classifier_only():
    model = nano()
    untouched = model.decode_head.conv_seg.weight.clone()
    state = filled(2) | {
        "decode_head.conv_seg.weight": torch.zeros(7, 8, 1, 1),
        "decode_head.conv_seg.bias": torch.zeros(7),
    }
    report = fit(model, state)
    assert [(fate.name, fate.model, fate.file) for fate in report.fates if fate.group == "misfit"] == [
        ("decode_head.conv_seg.weight", (8, 8, 1, 1), (7, 8, 1, 1)),
        ("decode_head.conv_seg.bias", (8,), (7,)),
    ]
    assert torch.equal(model.decode_head.conv_seg.weight, untouched)
    assert as_lines(report) == [
        "122 of 124 tensors loaded",
        "  misfit  2  in both, but differ: keep their initial values",
        "group   tensor                       model         file          why",
        "misfit  decode_head.conv_seg.weight  [8, 8, 1, 1]  [7, 8, 1, 1]  another shape",
        "misfit  decode_head.conv_seg.bias    [8]           [7]           another shape",
    ]


def test_missing_and_unused_tensors_are_both_named():
    state = filled(2)
    del state["backbone.layers.0.2.bias"]
    report = fit(nano(), state | {"auxiliary_head.conv.weight": torch.zeros(1)})
    assert report.names("missing") == ("backbone.layers.0.2.bias",)
    assert report.names("unused") == ("auxiliary_head.conv.weight",)
    assert not report.complete
    assert as_lines(report) == [
        "123 of 124 tensors loaded",
        "  missing  1  not in the file: keep their initial values",
        "  unused   1  not in the model: left out",
        "group    tensor                      model  file  why",
        "missing  backbone.layers.0.2.bias    [4]    -",
        "unused   auxiliary_head.conv.weight  -      [1]",
    ]


def test_the_prefix_of_data_parallel_wrappers_is_dropped_once():
    state = {f"module.{name}": tensor for name, tensor in filled(2).items()}
    assert fit(nano(), state).complete


def test_a_bare_backbone_file_fills_the_backbone():
    bare = dict(nano().backbone.state_dict())
    report = fit(nano(), bare)
    assert len(report.names("loaded")) == len(bare)
    assert not report.names("unused")
    assert all(name.startswith("decode_head.") for name in report.names("missing"))


def test_two_entries_for_one_tensor_are_refused_before_anything_is_copied():
    model = nano()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DamagedFile, match="two entries"):
        fit(model, filled(2) | {"module.backbone.layers.0.2.bias": torch.zeros(4)})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_file_of_another_kind_of_network_is_refused():
    with pytest.raises(Refused, match="not one tensor"):
        fit(nano(), {"conv1.weight": torch.zeros(64, 3, 7, 7)})


def test_the_comparison_needs_shapes_only():
    with torch.device("meta"):
        own = nano().state_dict()
    assert compare_weights(own, filled(0)).complete


def test_values_are_converted_to_the_type_of_the_model():
    model = nano()
    fit(model, {name: tensor.double() for name, tensor in filled(3).items()})
    assert model.decode_head.conv_seg.weight.dtype == torch.float32
    assert (model.decode_head.conv_seg.weight == 3).all()


@needs_files
@pytest.mark.parametrize("file", ["iter_20.pth", "best_mIoU_iter_10.pth"])
def test_a_real_file_loads_completely_and_predicts_finite_logits(file):
    structure, model = structure_of(file), nano()
    state = with_tensors(structure, weights(structure))
    assert fit(model, state).complete
    assert model.decode_head.fusion_conv.bn.num_batches_tracked == structure.step
    assert torch.isfinite(model.eval()(torch.randn(1, 3, 64, 64))).all()
