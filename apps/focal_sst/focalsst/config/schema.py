"""The whole config of the sonar detector, and what tasks and recipes ask of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import model_validator

from focalsst.config.agreement import disagreements
from focalsst.config.data import DataConfig
from focalsst.config.network import Model
from focalsst.config.not_built import not_built
from focalsst.config.optimization import Optimization
from focalsst.config.published import with_published
from focalsst.config.values import Intensity
from unbroken.config import Effect, Misfit, Section

SHAPE, MEANING, IGNORED = Effect.SHAPE, Effect.MEANING, Effect.IGNORED
Part = Literal["train", "test"]


class ClassName(Section):
    """Written as its name alone: another name or order is another meaning, another number another shape."""

    name: Annotated[str, MEANING]

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping) else {"name": value}


class SonarConfig(Section):
    """A config of the sonar detector: what a file in `cfgs/sonar_models` says, with its base.

    AS_PUBLISHED is not a setting of its own but stands for those of `published.SWITCHES`: True sets each of them as the
    original is, whatever the file says of it. A file that does not say AS_PUBLISHED is one of the original's, and is
    trained as it is there, except for the switches that it sets itself.
    """

    CLASS_NAMES: Annotated[tuple[ClassName, ...], SHAPE]
    DATA_CONFIG: DataConfig
    MODEL: Model
    OPTIMIZATION: Optimization
    AS_PUBLISHED: Annotated[bool, MEANING] = True
    HOOK: Annotated[Any, IGNORED] = None

    @classmethod
    def not_built(cls, tree: Mapping[str, Any], /) -> Misfit | None:
        """Whether it is another network than the one that is built here."""
        return not_built(tree)

    @classmethod
    def completed(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """With what AS_PUBLISHED stands for, or the original's defaults where it is not said."""
        return with_published(tree)

    def misfits(self) -> Iterator[Misfit]:
        """What is said in several places agrees, and the parts fit each other."""
        if not any(True for _ in self.DATA_CONFIG.misfits()) and not any(
            True for _ in self.MODEL.BACKBONE_2D.misfits()
        ):
            yield from disagreements(self)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the head's outputs."""
        return tuple(item.name for item in self.CLASS_NAMES)

    @property
    def map_class_to_kitti(self) -> dict[str, str]:
        """KITTI's name of each class, which decides how much overlap counts."""
        return {name: self.DATA_CONFIG.MAP_CLASS_TO_KITTI[name] for name in self.class_names}

    @property
    def data_root(self) -> str:
        """Where the data lies, as it was written."""
        return self.DATA_CONFIG.DATA_PATH

    @property
    def splits(self) -> dict[Part, str]:
        """The name of the list of frames in `ImageSets/` for each part."""
        return {"train": self.DATA_CONFIG.DATA_SPLIT.train, "test": self.DATA_CONFIG.DATA_SPLIT.test}

    @property
    def infos(self) -> dict[Part, str]:
        """The name of the file of infos, below the data root, for each part."""
        return {"train": self.DATA_CONFIG.INFO_PATH.train[0], "test": self.DATA_CONFIG.INFO_PATH.test[0]}

    @property
    def binary(self) -> bool:
        """Whether points are read from `points_binary`, not from text."""
        return self.DATA_CONFIG.USE_BINARY_FORMAT

    @property
    def intensity(self) -> Intensity:
        """How intensities are encoded."""
        return self.DATA_CONFIG.POINT_FEATURE_ENCODING.INTENSITY

    @property
    def mask_z(self) -> bool:
        """Whether points are masked along z too."""
        return self.DATA_CONFIG.mask.MASK_Z

    @property
    def augmentations(self) -> list[dict[str, Any]]:
        """The entries of AUG_CONFIG_LIST that are not disabled, as plain data in the original's words."""
        return self.DATA_CONFIG.DATA_AUGMENTOR.entries

    @property
    def nms_threshold(self) -> float:
        """The overlap on the ground above which the lesser box is suppressed."""
        return self.MODEL.DENSE_HEAD.POST_PROCESSING.NMS_CONFIG.NMS_THRESH

    @property
    def center_limit_range(self) -> tuple[float, ...]:
        """The range that detections are kept in: low x, y, z, high x, y, z, in metres."""
        return self.MODEL.DENSE_HEAD.POST_PROCESSING.POST_CENTER_LIMIT_RANGE

    @property
    def recall_thresholds(self) -> tuple[float, ...]:
        """The overlaps in space that recall is reported at."""
        return self.MODEL.POST_PROCESSING.RECALL_THRESH_LIST

    @property
    def batch_size(self) -> int:
        """Frames of a micro-batch."""
        return self.OPTIMIZATION.BATCH_SIZE_PER_GPU

    @property
    def accumulate(self) -> int:
        """Micro-batches of a step."""
        return self.OPTIMIZATION.GRAD_ACCUMULATION_STEPS

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.OPTIMIZATION.NUM_EPOCHS

    @property
    def lr(self) -> float:
        """The learning rate at the peak."""
        return self.OPTIMIZATION.LR

    @property
    def moms(self) -> tuple[float, float]:
        """Momentum at the ends and at the peak."""
        return self.OPTIMIZATION.MOMS

    @property
    def div_factor(self) -> float:
        """The peak's rate by the first one."""
        return self.OPTIMIZATION.DIV_FACTOR

    @property
    def pct_start(self) -> float:
        """The share of all steps before the peak."""
        return self.OPTIMIZATION.PCT_START

    @property
    def weight_decay(self) -> float:
        """Decoupled weight decay."""
        return self.OPTIMIZATION.WEIGHT_DECAY

    @property
    def grad_norm_clip(self) -> float:
        """The norm over all gradients that a step may have."""
        return self.OPTIMIZATION.GRAD_NORM_CLIP

    @property
    def freeze_in_proj(self) -> bool:
        """Whether the input projections of the attention are left as they are."""
        return self.OPTIMIZATION.FREEZE_IN_PROJ

    @property
    def fp16(self) -> bool:
        """Whether the forward pass runs in half precision."""
        return self.OPTIMIZATION.FP16

    @property
    def loss_scale(self) -> float:
        """The first scale of the loss in half precision."""
        return self.OPTIMIZATION.LOSS_SCALE_FP16

    @property
    def seed(self) -> int:
        """What first weights, order and augmentation follow from."""
        return self.OPTIMIZATION.SEED

    @property
    def eval_interval(self) -> int:
        """Epochs between evaluations while training; 0 for only at the end."""
        return self.OPTIMIZATION.EVAL_INTERVAL
