"""What a config says in several places, and what must fit together in all of it."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from focalsst.config.augmentation import GtSampling
from focalsst.config.network import Described, detector_settings, geometry
from focalsst.model.geometry import Geometry
from unbroken.config import ConfigError, Misfit

VFE, ENCODER = "MODEL.VFE", "MODEL.BACKBONE_3D.FOCAL_ENCODER"
DSVT, HEAD = "MODEL.BACKBONE_3D.DSVT", "MODEL.DENSE_HEAD"
RANGE = "DATA_CONFIG.POINT_CLOUD_RANGE"
KEYS = {"model.dsvt": DSVT, "model.bev": "MODEL.BACKBONE_2D", "model.head.code_weights": HEAD}


def disagreements(config: Described) -> Iterator[Misfit]:
    """Yield every place that disagrees with the one that decides, with the value to write there."""
    found = [*_class_misfits(config), *_copies_of_data(config), *_copies_of_model(config)]
    grid = _grid(config)
    found.extend([grid] if isinstance(grid, Misfit) else _copies_of_grid(config, grid))
    yield from found or _parts_that_do_not_fit(config)


def _class_misfits(config: Described) -> Iterator[Misfit]:
    names, kitti = config.class_names, config.DATA_CONFIG.MAP_CLASS_TO_KITTI
    if not names or len(set(names)) < len(names):
        yield Misfit("CLASS_NAMES", "does not name each class once", found=list(names))
    strange = [name for name in names if name not in kitti]
    for name in strange:
        close = get_close_matches(name, kitti, n=1)
        yield Misfit(
            "CLASS_NAMES", f"names `{name}`, which is not in DATA_CONFIG.MAP_CLASS_TO_KITTI",
            expected=" or ".join(kitti), found=name,
            do=f"Did you mean `{close[0]}`?" if close else "Add it there: it says how the class is judged.",
        )  # fmt: skip
    judged = [kitti[name] for name in names if name in kitti]
    if len(set(judged)) < len(judged):
        what = "judges two classes of CLASS_NAMES as one"
        yield Misfit("DATA_CONFIG.MAP_CLASS_TO_KITTI", what, "another KITTI class for each", judged)
    augmentor = config.DATA_CONFIG.DATA_AUGMENTOR
    for place, entry in enumerate(augmentor.AUG_CONFIG_LIST):
        pasted = entry.classes if isinstance(entry, GtSampling) and entry.NAME not in augmentor.DISABLE_AUG_LIST else ()
        for name in pasted:
            if name not in names:
                key = f"DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.{place}.SAMPLE_GROUPS"
                yield Misfit(key, "names a class that is not in CLASS_NAMES", list(names), name)


def _grid(config: Described) -> Geometry | Misfit:
    try:
        return geometry(config.DATA_CONFIG)
    except ConfigError as error:
        return Misfit(
            f"DATA_CONFIG.{config.DATA_CONFIG.voxels_key}.VOXEL_SIZE", f"and {RANGE} make no grid: {error.what}",
            error.expected, error.found, f"{error.do} The range is {RANGE}.".strip(),
        )  # fmt: skip


def _copies_of_data(config: Described) -> Iterator[Misfit]:
    data, model = config.DATA_CONFIG, config.MODEL
    voxel_key = f"DATA_CONFIG.{data.voxels_key}.VOXEL_SIZE"
    for key, part in ((VFE, model.VFE), (ENCODER, model.BACKBONE_3D.FOCAL_ENCODER)):
        yield from _copy(f"{key}.VOXEL_SIZE", part.VOXEL_SIZE, data.voxels.VOXEL_SIZE, voxel_key)
        yield from _copy(f"{key}.POINT_CLOUD_RANGE", part.POINT_CLOUD_RANGE, data.POINT_CLOUD_RANGE, RANGE)


def _copies_of_grid(config: Described, grid: Geometry) -> Iterator[Misfit]:
    dsvt, cells = config.MODEL.BACKBONE_3D.DSVT, grid.grid_xyz
    decides = f"the grid of {RANGE} and DATA_CONFIG.{config.DATA_CONFIG.voxels_key}.VOXEL_SIZE"
    yield from _copy(f"{DSVT}.INPUT_LAYER.sparse_shape", dsvt.INPUT_LAYER.sparse_shape, cells, decides)
    yield from _copy(f"{DSVT}.output_shape", dsvt.output_shape, cells[:2], decides)


def _copies_of_model(config: Described) -> Iterator[Misfit]:
    model, dsvt = config.MODEL, config.MODEL.BACKBONE_3D.DSVT
    windows, bev = dsvt.INPUT_LAYER, model.MAP_TO_BEV
    yield from _copy(f"{DSVT}.INPUT_LAYER.d_model", windows.d_model, dsvt.d_model, f"{DSVT}.d_model")
    pairs = [[(part.size, part.blocks) for part in parts or ()] for parts in (windows.set_info, dsvt.set_info)]
    yield from _copy(f"{DSVT}.INPUT_LAYER.set_info", pairs[0] or None, pairs[1], f"{DSVT}.set_info")
    yield from _copy("MODEL.MAP_TO_BEV.NUM_BEV_FEATURES", bev.NUM_BEV_FEATURES, dsvt.d_model[0], f"{DSVT}.d_model")
    heads = model.DENSE_HEAD.CLASS_NAMES_EACH_HEAD
    yield from _copy(f"{HEAD}.CLASS_NAMES_EACH_HEAD", heads, (config.class_names,), "CLASS_NAMES, one head for all")
    strides = model.BACKBONE_2D.LAYER_STRIDES[0] // model.BACKBONE_2D.UPSAMPLE_STRIDES[0]
    given = model.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE
    yield from _copy(f"{HEAD}.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE", given, strides, "MODEL.BACKBONE_2D")


def _copy(key: str, given: object, right: object, decides: str) -> Iterator[Misfit]:
    """Yield a misfit if a copy is given and is not right."""
    if given is not None and given != right:
        do = f"Write {_shown(right)} here, or remove this line: it is a copy."
        yield Misfit(key, f"disagrees with {decides}", _shown(right), _shown(given), do)


def _parts_that_do_not_fit(config: Described) -> Iterator[Misfit]:
    if any(True for _ in config.MODEL.BACKBONE_3D.DSVT.misfits()):
        return  # it says so itself, with the key
    try:
        detector_settings(config)
    except ConfigError as error:
        yield Misfit(KEYS.get(error.where, "MODEL"), error.what, error.expected, error.found, error.do)


def _shown(value: object) -> str:
    """Write a value as YAML has it: lists, not tuples."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
