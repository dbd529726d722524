"""SegFormer in plain PyTorch, with the parameter names and the parameter order of MMSegmentation.

Words: the *backbone* (a Mix Transformer, MiT) turns an image into four feature maps at 1/4, 1/8, 1/16 and
1/32 of its size; the *decode head* turns these into *logits* at 1/4 size, one channel per class; the
*segmentor* is both. Tokens are `BNC` (batch, position row by row, channel), maps and images `NCHW`.
Everything random here (dropout, drop path, initialisation) draws from torch's global generator, so that
saving that one stream saves all of it.

Touches torch.
"""

from mapsage.model.mix_transformer import MixVisionTransformer
from mapsage.model.segmentor import EncoderDecoder, SegformerHead, segmentor_name

__all__ = ["EncoderDecoder", "MixVisionTransformer", "SegformerHead", "segmentor_name"]
