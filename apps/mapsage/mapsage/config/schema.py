"""The whole MapSage config, and what must fit together in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from mapsage.config.data import DataLoader, EvalDataLoader, RandomCrop, RandomFlip, SegDataset
from mapsage.config.model import Segmentor
from mapsage.config.original import OF_RUNS
from mapsage.config.training import (
    DefaultHooks,
    EvalLoop,
    IoUMetric,
    LogProcessor,
    OptimWrapper,
    Phase,
    Randomness,
    TrainLoop,
)
from unbroken.config import Effect, Instead, Misfit, OrOne, Section, other_parts, value_at

FREE, IGNORED = Effect.FREE, Effect.IGNORED
Leftover = Annotated[Any, IGNORED]
DATA_ROOTS = Instead("train_dataloader.dataset.data_root, val_dataloader.dataset.data_root")
# The parts by which a training is another one, and what is built of each.
BUILT = {
    "model.type": ("EncoderDecoder",),
    "model.backbone.type": ("MixVisionTransformer",),
    "model.decode_head.type": ("SegformerHead",),
    "model.data_preprocessor.type": ("SegDataPreProcessor",),
    "train_cfg.type": ("IterBasedTrainLoop",),
    "optim_wrapper.type": ("OptimWrapper", "AmpOptimWrapper"),
    "optim_wrapper.optimizer.type": ("AdamW",),
    "train_dataloader.dataset.type": ("BaseSegDataset", "EarthVQADataset", "LoveDADataset", "ConcatDataset"),
}
FURTHER = ("model.neck", "model.auxiliary_head")  # parts that a network built here does not have
DO = "MapSage trains SegFormer; docs/guide-aerial.md says how."
LOADERS = ("train", "val", "test")
ZERO_IS_NO_DATA = (
    "EarthVQA's masks have the values 0 to 8, and 0 is no data: that makes 8 classes with reduce_zero_label=True "
    "(LoveDA: 0 to 7, so 7 classes)."
)
VALUES_OF = {"EarthVQADataset": 9, "LoveDADataset": 8}  # that masks can have, 0 (no data) included


class MapSageConfig(Section):
    """A MapSage config: what a file in `configs/` says, with its bases."""

    advice: ClassVar[Mapping[str, str]] = OF_RUNS

    model: Segmentor
    train_dataloader: DataLoader
    val_dataloader: Annotated[EvalDataLoader | None, FREE] = None
    test_dataloader: Annotated[EvalDataLoader | None, FREE] = None
    optim_wrapper: OptimWrapper
    param_scheduler: Annotated[tuple[Phase, ...], OrOne()] = ()
    train_cfg: TrainLoop
    val_cfg: Annotated[EvalLoop | None, FREE] = None
    test_cfg: Annotated[EvalLoop | None, FREE] = None  # the loop; how a picture is predicted says model.test_cfg
    val_evaluator: Annotated[IoUMetric | None, FREE] = None
    test_evaluator: Annotated[IoUMetric | None, FREE] = None
    default_hooks: DefaultHooks = DefaultHooks()
    gradient_checkpointing: Annotated[bool, FREE] = False
    randomness: Randomness = Randomness()
    load_from: Annotated[str | None, FREE] = None
    resume: Annotated[bool, FREE] = False
    work_dir: Annotated[str | None, FREE] = None  # None: work_dirs/<stem of the config file>
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], FREE] = "INFO"
    log_processor: LogProcessor = LogProcessor()

    # What only MMEngine reads, and names that configs use to write other keys.
    default_scope: Leftover = None
    env_cfg: Leftover = None
    visualizer: Leftover = None
    vis_backends: Leftover = None
    custom_imports: Leftover = None
    launcher: Leftover = None
    data: Annotated[Any, IGNORED, Instead("train_dataloader and val_dataloader")] = None
    dataset_type: Annotated[Any, IGNORED, Instead("train_dataloader.dataset.type, val_dataloader.dataset.type")] = None
    data_root: Annotated[Any, IGNORED, DATA_ROOTS] = None
    data_preprocessor: Annotated[Any, IGNORED, Instead("model.data_preprocessor")] = None
    crop_size: Annotated[Any, IGNORED, Instead("crop_size of RandomCrop in train_dataloader.dataset.pipeline")] = None
    img_scale: Annotated[Any, IGNORED, Instead("scale of the resizes in the pipelines of the data sets")] = None
    img_ratios: Leftover = None
    num_classes: Annotated[Any, IGNORED, Instead("model.decode_head.num_classes")] = None
    classes: Annotated[Any, IGNORED, Instead("train_dataloader.dataset.metainfo.classes")] = None
    palette: Leftover = None
    metainfo: Annotated[Any, IGNORED, Instead("train_dataloader.dataset.metainfo")] = None
    norm_cfg: Annotated[Any, IGNORED, Instead("model.decode_head.norm_cfg")] = None
    optimizer: Annotated[Any, IGNORED, Instead("optim_wrapper.optimizer")] = None
    checkpoint: Annotated[Any, IGNORED, Instead("load_from, or model.backbone.init_cfg.checkpoint")] = None
    train_pipeline: Annotated[Any, IGNORED, Instead("train_dataloader.dataset.pipeline")] = None
    val_pipeline: Annotated[Any, IGNORED, Instead("val_dataloader.dataset.pipeline")] = None
    test_pipeline: Annotated[Any, IGNORED, Instead("test_dataloader.dataset.pipeline")] = None
    tta_pipeline: Leftover = None
    tta_model: Leftover = None
    train_dataset: Annotated[Any, IGNORED, Instead("train_dataloader.dataset")] = None
    val_dataset: Annotated[Any, IGNORED, Instead("val_dataloader.dataset")] = None
    test_dataset: Annotated[Any, IGNORED, Instead("test_dataloader.dataset")] = None
    rural_train_dataset: Leftover = None
    urban_train_dataset: Leftover = None
    rural_val_dataset: Leftover = None
    urban_val_dataset: Leftover = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the network's outputs."""
        return self.train_dataloader.datasets[0].class_names

    @property
    def train_size_px(self) -> tuple[int, int]:
        """Height and width that training batches are padded to."""
        return self.model.data_preprocessor.size or self._crop_size() or (0, 0)

    @property
    def uses_gradient_checkpointing(self) -> bool:
        """Whether any of the three switches for gradient checkpointing is on."""
        return self.gradient_checkpointing or self.model.gradient_checkpointing or self.model.backbone.with_cp

    @classmethod
    def not_built(cls, tree: Mapping[str, Any], /) -> Misfit | None:
        """The first part that is not built, with the others; None where all are, or a name may be a misspelt one."""
        others = other_parts(tree, BUILT, likeness=0.9)
        others |= {key: value_at(tree, f"{key}.type", None) or key for key in FURTHER if value_at(tree, key, None)}
        if not others:
            return None
        key, found = next(iter(others)), ", ".join(dict.fromkeys(map(str, others.values())))
        built = " or ".join(BUILT[key]) if key in BUILT else "none"
        return Misfit(key, "is of another training", f"{built}: others are not built here", found, DO)

    def misfits(self) -> Iterator[Misfit]:
        """Classes, sizes and the parts of each loop fit together."""
        yield from self._class_misfits()
        yield from self._size_misfits()
        for name in ("val", "test"):
            yield from self._loop_misfits(name)
        for name, purpose in (("train", "Training"), ("val", "Validation")):
            for key, dataset in self.datasets_by_key(name):
                if dataset.data_prefix.seg_map_path is None:
                    yield Misfit(f"{key}.data_prefix", "has no `seg_map_path`", do=f"{purpose} needs masks.")
                yield from _pipeline_misfits(f"{key}.pipeline", dataset, judged=name == "val")

    def _class_misfits(self) -> Iterator[Misfit]:
        outputs = self.model.decode_head.num_classes
        for key, dataset in (each for name in LOADERS for each in self.datasets_by_key(name)):
            names = dataset.class_names
            reduced = dataset.zero_is_no_data
            if names and len(names) != outputs:
                yield Misfit(
                    "model.decode_head.num_classes", f"differs from the number of classes in {key}",
                    expected=f"{len(names)} ({', '.join(names)})", found=outputs,
                    do=ZERO_IS_NO_DATA if {len(names), outputs} <= {7, 8, 9} and reduced else "",
                )  # fmt: skip
            elif names and names != self.class_names:
                yield Misfit(f"{key}.metainfo", "names other classes than training", self.class_names, names)
            values = VALUES_OF.get(dataset.type, 0)
            if values and len(names) != values - reduced:
                yield Misfit(
                    f"{key}.metainfo" if dataset.metainfo else f"{key}.reduce_zero_label",
                    f"does not name what the masks of {dataset.type} hold",
                    expected=f"{values - reduced} names for the values {int(reduced)} to {values - 1}",
                    found=f"{len(names)} with reduce_zero_label={reduced}",
                    do="" if reduced else "Set reduce_zero_label=True: 0 is no data and no class.",
                )

    def _size_misfits(self) -> Iterator[Misfit]:
        crop, size = self._crop_size(), self.model.data_preprocessor.size
        if crop is None and size is None:
            yield Misfit(
                "model.data_preprocessor.size", "is not given, and no RandomCrop says it either",
                do="Give the size in px that training pictures are padded to.",
            )  # fmt: skip
        elif min(self.train_size_px) < (least := self.model.backbone.least_px):
            key = "model.data_preprocessor.size"
            yield Misfit(key, "is less than the network can take", f"at least {least} px", self.train_size_px)
        elif crop is not None and size is not None and any(cut > side for cut, side in zip(crop, size)):
            yield Misfit("model.data_preprocessor.size", "is smaller than the crop", f"at least {crop}", size)

    def _loop_misfits(self, name: str) -> Iterator[Misfit]:
        parts = [f"{name}_{part}" for part in ("dataloader", "cfg", "evaluator")]
        missing = [part for part in parts if getattr(self, part) is None]
        if 0 < len(missing) < len(parts):
            together = f"{', '.join(parts)} go together: all or none"
            yield from (Misfit(part, "is missing", do=f"{together}.") for part in missing)

    def _crop_size(self) -> tuple[int, int] | None:
        """The crop of the training pipelines, the largest if there are several."""
        steps = [step for dataset in self.train_dataloader.datasets for step in dataset.pipeline]
        return max((step.crop_size for step in steps if isinstance(step, RandomCrop)), default=None)

    def datasets_by_key(self, name: str) -> Iterator[tuple[str, SegDataset]]:
        """The datasets of the loader `train`, `val` or `test`, each with the key of its section."""
        loader = getattr(self, f"{name}_dataloader")
        if loader is None:
            return
        key = f"{name}_dataloader.dataset"
        several = loader.dataset.type == "ConcatDataset"
        for place, dataset in enumerate(loader.datasets):
            yield (f"{key}.datasets.{place}" if several else key), dataset


def _pipeline_misfits(key: str, dataset: SegDataset, *, judged: bool) -> Iterator[Misfit]:
    """What no picture could come through as it should, whatever its size."""
    kinds = [step.type for step in dataset.pipeline]
    if (loads := kinds.count("LoadAnnotations")) != 1:
        what = f"loads its masks {loads} times" if loads else "loads no masks"
        where = "after any resize" if judged else "before any resize, crop or flip"
        yield Misfit(key, what, do=f"Put one LoadAnnotations into it, {where}.")
        return
    for place, step in enumerate(dataset.pipeline):
        moves = isinstance(step, RandomCrop) or (isinstance(step, RandomFlip) and step.prob > 0)
        if moves and judged:
            do = "Leave it out: what is predicted is compared with the mask as it is on disk."
            yield Misfit(f"{key}.{place}", f"is a {step.type}, in validation", do=do)
        elif moves and place < kinds.index("LoadAnnotations"):
            do = "Put LoadAnnotations before it: the mask would stay where it was."
            yield Misfit(f"{key}.{place}", f"is a {step.type} before the masks are loaded", do=do)
