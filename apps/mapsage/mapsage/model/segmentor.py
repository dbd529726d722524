"""The whole network: backbone, then decode head."""

from __future__ import annotations

from torch import Tensor, nn

from mapsage.model.mix_transformer import MixVisionTransformer
from mapsage.model.segformer_head import SegformerHead


class EncoderDecoder(nn.Module):
    """Normalised RGB image NCHW to logits NKHW at 1/4 of its size; loss and prediction resize them."""

    def __init__(self, backbone: MixVisionTransformer, decode_head: SegformerHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """NCHW to logits NKHW."""
        logits_NKHW: Tensor = self.decode_head(self.backbone(image_NCHW))
        return logits_NKHW


def segmentor_name(name: str) -> str:
    """A tensor's name in the whole network; bare MiT files say `layers...` for `backbone.layers...`."""
    return f"backbone.{name}" if name.startswith("layers.") else name
