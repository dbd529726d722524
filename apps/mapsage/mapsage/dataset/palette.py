"""The class names and colours of EarthVQA and LoveDA, in the order of their labels.

Labels here are those after `reduce_zero_label`: 0 is the first class and 255 is no data. In the mask files
0 is no data and the classes start at 1.
"""

from __future__ import annotations

from typing import Final

RGB = tuple[int, int, int]

IGNORED: Final = 255  # the label that neither loss nor metrics count

EARTHVQA: Final[dict[str, RGB]] = {
    "background": (255, 255, 255),
    "building": (255, 0, 0),
    "road": (255, 255, 0),
    "water": (0, 0, 255),
    "barren": (159, 129, 183),
    "forest": (0, 255, 0),
    "agriculture": (255, 195, 128),
    "playground": (165, 0, 165),
}
EARTHVQA_CLASSES: Final = tuple(EARTHVQA)
EARTHVQA_PALETTE: Final = tuple(EARTHVQA.values())

# LoveDA has the same first seven classes and colours; only the last name differs.
LOVEDA: Final[dict[str, RGB]] = dict(zip((*EARTHVQA_CLASSES[:6], "agricultural"), EARTHVQA_PALETTE[:7], strict=True))
LOVEDA_CLASSES: Final = tuple(LOVEDA)
LOVEDA_PALETTE: Final = tuple(LOVEDA.values())
