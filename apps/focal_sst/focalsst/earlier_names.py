"""Names of tensors in our own checkpoints before the network's parts had the original's names."""

from __future__ import annotations

import re

# Each pair: what the name began with or held, and what stands there now. No present name matches any of them.
EARLIER = (
    (re.compile(r"^(vfe\.pfn_layers\.\d+)\.point_gate\."), r"\1.pa_fc.0."),
    (re.compile(r"^(vfe\.pfn_layers\.\d+)\.channel_gate\."), r"\1.ca_fc."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv1\.conv\."), r"\1.conv_input.0."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv1\.norm\."), r"\1.conv_input.1."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv2\.conv\."), r"\1.conv_input.3."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv2\.norm\."), r"\1.conv_input.4."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.importance\."), r"\1.conv_imp."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv3\.conv\."), r"\1.conv_focal.0."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv3\.norm\."), r"\1.conv_focal.1."),
)


def present_name(name: str) -> str:
    """The name that the network has now for a tensor of a checkpoint, whenever it was written."""
    for earlier, now in EARLIER:
        name = earlier.sub(now, name)
    return name
