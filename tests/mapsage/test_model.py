"""The network: names, counts and order of MMSegmentation, and arithmetic against plain references."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine_files import nano, needs_files, structure_of
from torch import Tensor, nn

from mapsage.loss import LossTerm, decode_losses, total_loss
from mapsage.model import EncoderDecoder, MixVisionTransformer, SegformerHead
from mapsage.model.mix_transformer import DropPath, EfficientAttention, FusedAttention, map_to_tokens, tokens_to_map
from unbroken.checkpoint.structure import weights
from unbroken.errors import ConfigError

B0 = {"embed_dims": 32, "num_layers": (2, 2, 2, 2)}
B2 = {"embed_dims": 64, "num_layers": (3, 4, 6, 3)}


def segformer(shape: dict, num_classes: int, *, norm_requires_grad: bool = True) -> EncoderDecoder:
    widths = [shape["embed_dims"] * heads for heads in (1, 2, 5, 8)]
    with torch.device("meta"):  # shapes only: no time, no memory
        head = SegformerHead(
            in_channels=widths,
            in_index=(0, 1, 2, 3),
            channels=256,
            num_classes=num_classes,
            norm_requires_grad=norm_requires_grad,
        )
        return EncoderDecoder(MixVisionTransformer(**shape), head)


def numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("shape", "classes", "backbone", "head", "entries"),
    [
        (B0, 8, 3_319_392, 397_832, 192),
        (B2, 7, 24_196_288, 528_647, 332),
        (B2, 8, 24_196_288, 528_904, 332),
        (B2, 9, 24_196_288, 529_161, 332),
    ],
)
def test_parameter_counts_are_those_of_mmsegmentation(shape, classes, backbone, head, entries):
    model = segformer(shape, classes)
    assert (numel(model.backbone), numel(model.decode_head)) == (backbone, head)
    assert len(model.state_dict()) == entries


def test_freezing_the_norms_takes_2560_parameters_out_of_training():
    frozen = [p for p in segformer(B2, 7, norm_requires_grad=False).parameters() if not p.requires_grad]
    assert sum(parameter.numel() for parameter in frozen) == 2560


@needs_files
@pytest.mark.parametrize("file", ["iter_10.pth", "iter_20.pth", "best_mIoU_iter_10.pth"])
def test_names_order_and_shapes_are_those_of_the_real_file(file):
    ours = [(name, tuple(tensor.shape)) for name, tensor in nano().state_dict().items()]
    assert ours == [(name, ref.shape) for name, ref in weights(structure_of(file)).items()]


def test_the_classifier_is_numbered_before_the_layers_that_feed_it():
    names = [name for name, _ in nano().named_parameters() if name.startswith("decode_head")]
    assert [name.split(".")[1] for name in names] == ["conv_seg"] * 2 + ["convs"] * 12 + ["fusion_conv"] * 3


@pytest.mark.parametrize("size", [(64, 64), (96, 80), (70, 53)])
def test_logits_have_a_quarter_of_any_size_rounded_up(size):
    logits = nano().eval()(torch.randn(2, 3, *size))
    assert logits.shape == (2, 8, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert torch.isfinite(logits).all()


def test_a_list_of_another_length_than_the_stages_is_refused():
    with pytest.raises(ConfigError, match="one value per stage"):
        MixVisionTransformer(num_layers=(3, 4, 6))


def test_a_head_with_widths_for_other_maps_is_refused():
    with pytest.raises(ConfigError, match="different numbers"):
        SegformerHead(in_channels=(4, 8), in_index=(0, 1, 2), channels=8, num_classes=8)


# -- attention


def multihead_with_the_weights_of(ours: FusedAttention, width: int, heads: int) -> nn.MultiheadAttention:
    reference = nn.MultiheadAttention(width, heads, batch_first=True)
    reference.load_state_dict(ours.state_dict())
    return reference


def test_attention_is_torch_multihead_attention_under_the_same_names():
    torch.manual_seed(1)
    ours = FusedAttention(width=12, heads=3, dropout=0.0, bias=True)
    nn.init.normal_(ours.in_proj_bias)
    reference = multihead_with_the_weights_of(ours, 12, 3)
    query, memory = torch.randn(2, 20, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(query, memory), reference(query, memory, memory)[0], rtol=1e-5, atol=1e-6)


def test_reduced_attention_sees_the_normalised_strided_convolution():
    torch.manual_seed(2)
    ours = EfficientAttention(
        width=8, heads=2, reduction=2, bias=True, attention_dropout=0.0, dropout=0.0, drop_path=0.0
    )
    reference = multihead_with_the_weights_of(ours.attn, 8, 2)
    tokens = torch.randn(2, 5 * 7, 8)
    image = torch.stack([tokens[:, row * 7 : row * 7 + 7] for row in range(5)], dim=1).permute(0, 3, 1, 2)
    memory = ours.norm(torch.nn.functional.conv2d(image, ours.sr.weight, ours.sr.bias, stride=2).flatten(2).mT)
    torch.testing.assert_close(ours(tokens, (5, 7)), reference(tokens, memory, memory)[0], rtol=1e-5, atol=1e-6)


def test_attention_without_bias_has_no_bias():
    ours = FusedAttention(width=8, heads=2, dropout=0.0, bias=False)
    assert set(ours.state_dict()) == {"in_proj_weight", "out_proj.weight"}
    assert ours(torch.randn(1, 4, 8), torch.randn(1, 3, 8)).shape == (1, 4, 8)


def test_attention_dropout_falls_in_training_only():
    ours = FusedAttention(width=8, heads=2, dropout=0.5, bias=True)
    x = torch.randn(1, 9, 8)
    assert not torch.equal(ours(x, x), ours(x, x))
    ours.eval()
    assert torch.equal(ours(x, x), ours(x, x))


def test_tokens_and_maps_are_two_readings_of_the_same_values():
    image = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    tokens = map_to_tokens(image)
    assert tokens[1, 7].tolist() == image[1, :, 1, 2].tolist()
    assert torch.equal(tokens_to_map(tokens, (4, 5)), image)


# -- drop path


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean():
    torch.manual_seed(3)
    dropped = DropPath(0.25)(torch.ones(20_000, 2, 3))
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert set(dropped.unique().tolist()) == {0.0, torch.ones(()).div(0.75).item()}
    assert abs(dropped.mean().item() - 1.0) < 0.02


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_drop_path_that_drops_nothing_is_the_identity_and_draws_nothing(rate, training):
    layer, x = DropPath(rate).train(training), torch.randn(4, 5)
    before = torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_drop_path_rates_rise_evenly_over_all_blocks():
    with torch.device("meta"):
        backbone = MixVisionTransformer(**B2)
    rates = [module.rate for module in backbone.modules() if isinstance(module, DropPath)]
    assert rates[0::2] == rates[1::2] == torch.linspace(0, 0.1, 16, device="cpu").tolist()


# -- training


def losses_and_gradients(*, with_cp: bool) -> tuple[list[float], list[Tensor]]:
    torch.manual_seed(4)
    model = nano(drop_path_rate=0.3, drop_rate=0.1, attn_drop_rate=0.1, with_cp=with_cp).train()
    image, label = torch.randn(3, 3, 64, 64), torch.randint(0, 8, (3, 64, 64))
    losses = []
    for _ in range(3):
        loss = total_loss(decode_losses(model(image), label, (LossTerm(kind="ce"),)))
        loss.backward()
        losses.append(loss.item())
    return losses, [parameter.grad for parameter in model.parameters()]


def test_gradient_checkpointing_changes_no_bit_even_with_dropout_on():
    plain_losses, plain_gradients = losses_and_gradients(with_cp=False)
    losses, gradients = losses_and_gradients(with_cp=True)
    assert losses == plain_losses
    assert all(map(torch.equal, gradients, plain_gradients))
    assert len(set(losses)) == 3  # dropout was really on


def test_gradient_checkpointing_keeps_fewer_activations():
    def kept_bytes(*, with_cp: bool) -> int:
        sizes = []
        model = nano(with_cp=with_cp).train()
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        )
        with hooks:
            model(torch.randn(1, 3, 64, 64))
        return sum(sizes)

    assert kept_bytes(with_cp=True) < 0.7 * kept_bytes(with_cp=False)


def test_frozen_norms_still_follow_the_data():
    head = SegformerHead(in_channels=(4,), in_index=(0,), channels=8, num_classes=2, norm_requires_grad=False)
    head.train()([torch.randn(2, 4, 8, 8) + 5.0])
    assert head.convs[0].bn.running_mean.abs().max() > 0
    assert head.convs[0].bn.num_batches_tracked == 1
    assert not head.convs[0].bn.weight.requires_grad


def test_the_head_is_the_sum_of_its_spelled_out_parts():
    torch.manual_seed(5)
    head = SegformerHead(in_channels=(4, 6), in_index=(0, 2), channels=8, num_classes=3).eval()
    fine, unused, coarse = torch.randn(2, 4, 9, 7), torch.randn(2, 5, 5, 4), torch.randn(2, 6, 3, 2)
    levels = []
    for conv, feature in zip(head.convs, (fine, coarse)):
        value = (conv.conv.weight[:, :, 0, 0] @ feature.flatten(2)).unflatten(2, feature.shape[2:])
        value = (value / math.sqrt(1 + 1e-5)).relu()  # fresh running statistics: mean 0, variance 1
        levels.append(nn.functional.interpolate(value, size=(9, 7), mode="bilinear", align_corners=False))
    fused = (head.fusion_conv.conv(torch.cat(levels, 1)) / math.sqrt(1 + 1e-5)).relu()
    torch.testing.assert_close(head([fine, unused, coarse]), head.conv_seg(fused), rtol=1e-5, atol=1e-6)


def test_fresh_weights_have_the_spread_that_mmsegmentation_gives_them():
    torch.manual_seed(6)
    backbone = MixVisionTransformer(embed_dims=16, num_layers=(1, 1, 1, 1))
    state = backbone.state_dict()
    assert state["layers.3.1.0.ffn.layers.1.weight"].std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert state["layers.3.1.0.ffn.layers.0.weight"].std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.05)
    assert state["layers.3.1.0.attn.attn.out_proj.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    bound = math.sqrt(6 / (128 + 3 * 128))
    assert bound * 0.98 < state["layers.3.1.0.attn.attn.in_proj_weight"].abs().max().item() <= bound
    assert all((value == 0).all() for name, value in state.items() if name.endswith("bias"))


def test_the_global_generator_is_the_only_source_of_chance():
    torch.manual_seed(7)
    model, image = nano(drop_rate=0.1).train(), torch.randn(2, 3, 64, 64)
    before = torch.get_rng_state()
    first = model(image)
    torch.set_rng_state(before)
    assert torch.equal(model(image), first)
