"""The network as published: against computations of its own, and against numbers that the original's code gave.

The original's `SDAVFE` and `SimpleVFE` (Feath-coatl/Focal-SST-Sonar at 9e09073) were run on a CPU with the points and
weights of `points` and `weigh`; what came out stands in RECORDED.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from focalsst.config import SonarConfig, detector_settings
from focalsst.config.original import SWITCHES
from focalsst.model.focal_encoder import NEIGHBOURS, proposed_cells
from focalsst.model.settings import Geometry, VfeSettings, VoxelSettings
from focalsst.model.vfe import SDAVFE
from focalsst.model.voxels import PointGroups, SparseVoxels, group_points
from focalsst.task import build
from tests.focalsst.config.original_files import MODEL, write_original
from tests.focalsst.detectors import FOCAL_SST, NANO, as_published
from tests.focalsst.nano_job import job, session, steps, write_nano_job
from unbroken.config import changes, effects, merge_options, read_config, validate
from unbroken.errors import Incompatible
from unbroken.train import read_checkpoint

from .model_inputs import random_cells, scene

CONFIGS = Path(__file__).parents[2] / "apps/focal_sst/cfgs"
GRID = Geometry(point_cloud_range=(0.0, -3.0, -3.0, 12.0, 3.0, 3.0), voxel_size=(1.5, 1.5, 1.5))
PLACES = 3
# Encoder, USE_ABSLOTE_XYZ, training; the sum over 14 voxels of each of 6 channels; the features of the first voxel.
RECORDED = [
    (
        "SDAVFE",
        True,
        True,
        [2.93058, 11.30362, 19.92164, 24.96246, 33.46503, 24.4026],
        [0.25057, 0.76253, 0.94833, 0.6043, 0.0, 0.71279],
    ),
    (
        "SDAVFE",
        True,
        False,
        [0.0, 0.0, 24.63322, 46.12804, 130.19327, 127.9052],
        [0.0, 0.0, 1.71408, 2.53949, 5.05961, 5.90407],
    ),
    (
        "SDAVFE",
        False,
        True,
        [1.00268, 12.04778, 23.1656, 25.11621, 32.84991, 26.00345],
        [0.3008, 1.07328, 1.70512, 1.7004, 1.10969, 0.0],
    ),
    (
        "SDAVFE",
        False,
        False,
        [0.0, 0.0, 24.30133, 36.13055, 73.09177, 63.26632],
        [0.0, 0.0, 1.70522, 2.62416, 4.76666, 3.71046],
    ),
    (
        "SimpleVFE",
        True,
        True,
        [16.51673, 21.88617, 19.58493, 15.29018, 9.0227, 2.34335],
        [0.0684, 1.83777, 4.16125, 3.6098, 1.76677, 0.19528],
    ),
    (
        "SimpleVFE",
        True,
        False,
        [43.65402, 37.63528, 18.60588, 0.81638, 0.0, 0.0],
        [1.56479, 2.12599, 1.99545, 0.81638, 0.0, 0.0],
    ),
    (
        "SimpleVFE",
        False,
        True,
        [14.86538, 21.41342, 22.00251, 17.95697, 11.34726, 2.582],
        [2.0516, 1.2132, 0.46241, 0.0, 0.0, 0.0],
    ),
    (
        "SimpleVFE",
        False,
        False,
        [32.28097, 38.13002, 32.11462, 7.19125, 0.0, 0.0],
        [1.85232, 1.76709, 0.96584, 0.0, 0.0, 0.0],
    ),
]


def points() -> Tensor:
    """23 points in 14 voxels, of which three are full."""
    i = torch.arange(23.0)
    x, y, z = 1 + 3 * (i * 0.37 % 1) + i // 4, -2 + (i * 0.61 % 1) * 2.2, -1 + (i * 0.23 % 1) * 1.8
    return torch.stack((x, y, z, 0.5 + 0.3 * torch.sin(i)), dim=1)


def weigh(network: torch.nn.Module) -> None:
    """Weights by formula: they depend on the order of the names, which is the original's."""
    for place, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        if tensor.is_floating_point():
            values = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + place).float()
            if name.endswith("running_var"):
                values = values.abs() + 0.5
            elif name.endswith("norm.weight"):
                values = values * 0.3 + 1
            tensor.copy_((values * 0.5 if tensor.dim() == 2 else values).view(tensor.shape))


def encoder(name: str = "SDAVFE", *, absolute_xyz: bool = True, padded: bool = True) -> SDAVFE:
    settings = VfeSettings(filters=(8, 6), gates=name == "SDAVFE", absolute_xyz=absolute_xyz, padded_rows=padded)
    found = SDAVFE(settings, GRID, point_features=4, places=PLACES, eps=1e-3, momentum=0.01)
    weigh(found)
    return found


def grouped() -> PointGroups:
    caps = VoxelSettings(max_points_per_voxel=PLACES)
    return group_points(points(), torch.zeros(23), batch_size=1, geometry=GRID, caps=caps)


def by_table(network: SDAVFE, groups: PointGroups) -> Tensor:
    """The published formula on a table of `PLACES` rows a voxel, empty ones included, with PyTorch's own functions."""
    described_PC, voxels = network.describe(groups), len(groups.cells_V4)
    x_VNC = torch.zeros(voxels, PLACES, described_PC.shape[1])
    filled = [0] * voxels
    for row, voxel in zip(described_PC, groups.voxel_P.tolist()):
        x_VNC[voxel, filled[voxel]] = row
        filled[voxel] += 1
    for layer in network.pfn_layers:
        h_VNC = x_VNC @ layer.linear.weight.T
        norm, flat = layer.norm, h_VNC.flatten(0, 1)
        statistics = norm.running_mean.clone(), norm.running_var.clone()
        flat = F.batch_norm(flat, *statistics, norm.weight, norm.bias, network.training, norm.momentum, norm.eps)
        x_VNC = F.relu(flat).view_as(h_VNC)
        if network.settings.gates:
            point_VN1 = torch.sigmoid(x_VNC @ layer.pa_fc[0].weight.T)
            squeezed_V1C = F.relu(x_VNC.amax(1, keepdim=True) @ layer.ca_fc[0].weight.T)
            channel_V1C = torch.sigmoid(squeezed_V1C @ layer.ca_fc[2].weight.T)
            x_VNC = x_VNC * (1 + point_VN1 * channel_V1C)
    return x_VNC.amax(1)


# -- the voxel encoder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "absolute_xyz", "training", "sums", "first"), RECORDED)
def test_padded_rows_give_what_the_original_gives(
    name: str, absolute_xyz: bool, training: bool, sums: list[float], first: list[float]
) -> None:
    network, groups = encoder(name, absolute_xyz=absolute_xyz).train(training), grouped()
    expected = by_table(network, groups)
    found = network(groups).features_VC
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.sum(0).tolist() == pytest.approx(sums, abs=2e-4)
    assert found[0].tolist() == pytest.approx(first, abs=2e-5)
    alone = encoder(name, absolute_xyz=absolute_xyz, padded=False).train(training)(groups).features_VC
    assert not training or ((alone - found).abs().amax(1) > 1e-3).all(), (
        "without the empty places it is another network"
    )


def test_running_statistics_count_the_empty_places() -> None:
    network, groups = encoder("SimpleVFE").train(), grouped()
    rows_RC = torch.zeros(len(groups.cells_V4) * PLACES, 10)
    rows_RC[: len(groups.points_PF)] = network.describe(groups)  # in any order: statistics know none
    reference = torch.nn.BatchNorm1d(8, eps=1e-3, momentum=0.01)
    reference.load_state_dict(network.pfn_layers[0].norm.state_dict())
    reference(rows_RC @ network.pfn_layers[0].linear.weight.T)
    network(groups)
    for name, tensor in reference.state_dict().items():
        assert torch.allclose(network.pfn_layers[0].norm.state_dict()[name], tensor, atol=1e-6), name


def test_gradients_are_those_of_the_table() -> None:
    network, groups = encoder().train(), grouped()
    parameters = list(network.parameters())
    ours = torch.autograd.grad((network(groups).features_VC ** 2).sum(), parameters)
    theirs = torch.autograd.grad((by_table(network, groups) ** 2).sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(ours, theirs))


# -- voxels over the cap, and the first cells of an axis ---------------------------------------------------------------


def test_over_the_cap_the_voxels_whose_first_point_comes_first_stay() -> None:
    cloud, owner = scene()
    order = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(1))
    cloud, owner = cloud[order], owner[order]
    caps = VoxelSettings(max_points_per_voxel=2, max_voxels=40, overflow="first")
    found = group_points(cloud, owner, batch_size=2, geometry=NANO.geometry, caps=caps)
    size, low = torch.tensor(NANO.geometry.voxel_size), torch.tensor(NANO.geometry.lower_m)
    kept: dict[tuple[int, ...], list[list[float]]] = {}
    voxels = [0, 0]
    for point, sample in zip(cloud, owner.tolist()):
        x, y, z = ((point[:3] - low) / size).floor().long().tolist()
        inside = all(0 <= place < cells for place, cells in zip((x, y, z), NANO.geometry.grid_xyz))
        cell = (sample, z, y, x)
        if inside and cell not in kept and voxels[sample] < 40:
            kept[cell] = []
            voxels[sample] += 1
        if cell in kept and len(kept[cell]) < 2:
            kept[cell].append(point.tolist())
    assert voxels == [40, 40]
    assert [tuple(cell) for cell in found.cells_V4.tolist()] == sorted(kept)
    assert found.points_PF.tolist() == [point for cell in sorted(kept) for point in kept[cell]]


def test_without_edge_cells_no_voxel_is_added_in_the_first_cell_of_an_axis_and_elsewhere_all_are() -> None:
    grid = (4, 5, 7)
    cells = random_cells(25, grid)
    voxels = SparseVoxels(features_VC=torch.zeros(25, 1), cells_V4=cells, batch_size=2)
    logits = torch.randn(25, 27, generator=torch.Generator().manual_seed(2))
    options = {"threshold": 0.5, "max_growth": float("inf"), "grid_zyx": grid}
    both, inner = (
        {tuple(cell) for cell in proposed_cells(voxels, logits, edge_cells=edge, **options).tolist()}
        for edge in (True, False)
    )
    assert inner == {cell for cell in both if min(cell[1:]) > 0} < both
    expected = {
        (b, *new)
        for (b, *cell), scores in zip(cells.tolist(), logits.sigmoid())
        if scores[-1] > 0.5
        for step, score in zip(NEIGHBOURS, scores)
        if score >= 0.5 and all(0 < c + d < n for c, d, n in zip(cell, step, grid))
        for new in [tuple(c + d for c, d in zip(cell, step))]
    }
    assert inner == expected - {tuple(cell) for cell in cells.tolist()}


# -- a file of the original --------------------------------------------------------------------------------------------


def test_a_file_that_does_not_say_as_published_is_trained_as_the_original_trains_it(tmp_path: Path) -> None:
    file = read_config(write_original(tmp_path))
    found = validate(SonarConfig, file)
    assert found.value.AS_PUBLISHED and detector_settings(found.value) == as_published(FOCAL_SST)
    explicit = validate(SonarConfig, {**file.tree, "AS_PUBLISHED": True})
    assert explicit.canonical == found.canonical
    assert validate(SonarConfig, found.canonical).canonical == found.canonical


def test_of_such_a_file_a_switch_that_it_sets_counts_and_what_is_recorded_reads_the_same(tmp_path: Path) -> None:
    tree = merge_options(read_config(write_original(tmp_path)).tree, ["MODEL.DENSE_HEAD.HEADING=axis"])
    found = validate(SonarConfig, tree)
    assert not found.value.AS_PUBLISHED and found.value.MODEL.DENSE_HEAD.HEADING == "axis"
    assert found.value.MODEL.VFE.PADDED_ROWS and found.value.OPTIMIZATION.FREEZE_IN_PROJ
    assert validate(SonarConfig, found.canonical).canonical == found.canonical


def test_what_the_original_takes_for_a_key_that_is_left_out_is_taken_here_too(tmp_path: Path) -> None:
    tree = read_config(write_original(tmp_path)).tree
    del tree["DATA_CONFIG"]["USE_BINARY_FORMAT"], tree["MODEL"]["DENSE_HEAD"]["USE_BIAS_BEFORE_NORM"]
    found = validate(SonarConfig, tree).value
    assert not found.DATA_CONFIG.USE_BINARY_FORMAT and not found.MODEL.DENSE_HEAD.USE_BIAS_BEFORE_NORM
    ours = validate(SonarConfig, {**tree, "AS_PUBLISHED": False}).value
    assert ours.DATA_CONFIG.USE_BINARY_FORMAT and ours.MODEL.DENSE_HEAD.USE_BIAS_BEFORE_NORM


def test_a_record_from_before_the_newest_switches_is_of_the_same_training(tmp_path: Path) -> None:
    now = validate(SonarConfig, read_config(CONFIGS / "sonar_models/nano.yaml"))
    then = merge_options(now.canonical, [])
    del then["MODEL"]["VFE"]["PADDED_ROWS"], then["MODEL"]["BACKBONE_3D"]["FOCAL_ENCODER"]["EDGE_CELLS"]
    del then["DATA_CONFIG"]["DATA_PROCESSOR"][2]["OVERFLOW"], then["OPTIMIZATION"]["FREEZE_IN_PROJ"]
    known = effects(SonarConfig)
    assert changes(then, now.canonical, known) == ()
    turned = merge_options(now.canonical, ["MODEL.VFE.PADDED_ROWS=True"])
    (change,) = changes(then, turned, known)
    assert str(change) == "MODEL.VFE.PADDED_ROWS: False -> True (meaning)"


def test_beside_our_data_set_s_config_a_file_of_the_original_is_the_original_too(tmp_path: Path) -> None:
    """Someone copies the original's model file to where our configs lie: its base is ours then."""
    shutil.copytree(CONFIGS, tmp_path / "cfgs")
    path = tmp_path / "cfgs/sonar_models/theirs.yaml"
    path.write_text(MODEL)
    found = validate(SonarConfig, read_config(path))
    assert found.value.AS_PUBLISHED and found.value.DATA_CONFIG.POINT_FEATURE_ENCODING.INTENSITY == "original"
    assert detector_settings(found.value) == as_published(FOCAL_SST)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_nano_job(tmp_path, epochs=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_the_word(app: Path) -> str:
    """The job's config as one file, without AS_PUBLISHED; every switch that it sets is left out too."""
    tree = validate(SonarConfig, read_config(app / "cfgs/sonar_models/tiny.yaml")).canonical
    del tree["AS_PUBLISHED"]
    for key in SWITCHES:
        section = tree
        *path, last = key.split(".")
        for part in path:
            section = section[part] if isinstance(section, dict) else next(s for s in section if s["NAME"] == part)
        del section[last]
    path = app / "cfgs/sonar_models/theirs.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path.relative_to(app))


def test_the_plan_says_so_and_a_run_of_ours_under_this_file_is_refused_with_each_key_that_differs(app: Path) -> None:
    config = without_the_word(app)
    repaired = job("--workers", 0, "--eval_interval", 0, "--set", "AS_PUBLISHED", "False", config=config)
    code, said = session(repaired, stop_at=2)
    assert code == 75 and "does not say AS_PUBLISHED" not in said
    with pytest.raises(Incompatible) as refused:
        session(job("--workers", 0, "--eval_interval", 0, config=config))
    words = str(refused.value)
    for key, before, now in (("HEADING", "axis", "direction"), ("INTENSITY", "standard", "original")):
        assert f"{key}: '{before}' -> '{now}'" in words
    assert "PADDED_ROWS: False -> True" in words
    assert "note: the config does not say AS_PUBLISHED" in words
    code, said = session(job("--workers", 0, "--eval_interval", 0, "--extra_tag", "theirs", config=config))
    assert code == 0 and said.count("note: the config does not say AS_PUBLISHED") == 1


def test_as_published_the_projections_of_the_attention_stay_as_they_were(app: Path) -> None:
    task = build(job("--workers", 0, "--set", "AS_PUBLISHED", True), lambda _line: None)
    batch = task.batches.collate([task.dataset.sample(i, np.random.default_rng(i)) for i in range(2)])
    before = {name: tensor.clone() for name, tensor in task.model.named_parameters()}
    task.loss(batch)["loss"].backward()
    task.optimizer.step()
    still = [name for name, tensor in task.model.named_parameters() if torch.equal(tensor, before[name])]
    assert still and all("in_proj" in name for name in still)
    assert len(still) == sum("in_proj" in name for name in before)


def test_as_published_an_interrupted_run_is_the_twin_of_one_that_was_not(app: Path) -> None:
    options = ("--workers", 0, "--eval_interval", 0, "--set", "AS_PUBLISHED", True)
    whole, cut = (job("--extra_tag", tag, *options) for tag in ("whole", "cut"))
    assert session(whole)[0] == 0
    assert session(cut, stop_at=3)[0] == 75 and session(cut)[0] == 0
    one, other = ([line["loss"] for line in steps(each.directory)] for each in (whole, cut))
    assert one == other and len(one) == 5
    states = [read_checkpoint(each.directory / "ckpt/checkpoint_epoch_1.pth")["model_state"] for each in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
