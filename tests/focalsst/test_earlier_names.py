"""Our own checkpoints from before the network's parts had the original's names are read under the present ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from focalsst.original_states import present_name
from focalsst.task import blueprint
from focalsst.testing import main as judge
from tests.focalsst.detectors import FOCAL_SST
from tests.focalsst.nano_job import CONFIG, events, job, session, steps, write_nano_job
from tests.focalsst.original_network import original_network
from unbroken import Job
from unbroken.train import read_checkpoint
from unbroken.train.shapes import fit_of

ENCODER = "backbone_3d.focal_encoder"
STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# What the names were, written down: what stands for `*` is one of STATISTICS.
WERE = {
    **{
        f"vfe.pfn_layers.{layer}.{now}.weight": f"vfe.pfn_layers.{layer}.{was}.weight"
        for layer in (0, 1)
        for now, was in (("pa_fc.0", "point_gate"), ("ca_fc.0", "channel_gate.0"), ("ca_fc.2", "channel_gate.2"))
    },
    **{
        f"{ENCODER}.{now}.weight": f"{ENCODER}.{was}.weight"
        for now, was in (
            ("conv_input.0", "conv1.conv"),
            ("conv_input.3", "conv2.conv"),
            ("conv_imp", "importance"),
            ("conv_focal.0", "conv3.conv"),
        )
    },
    **{
        f"{ENCODER}.{now}.{statistic}": f"{ENCODER}.{was}.norm.{statistic}"
        for now, was in (("conv_input.1", "conv1"), ("conv_input.4", "conv2"), ("conv_focal.1", "conv3"))
        for statistic in STATISTICS
    },
}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_nano_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written_then(path: Path) -> None:
    """Give the tensors of a checkpoint the names that they had; its manifest is of other bytes and goes."""
    tree: dict[str, Any] = torch.load(path, weights_only=True)
    tree["model_state"] = {WERE.get(name, name): tensor for name, tensor in tree["model_state"].items()}
    torch.save(tree, path)
    (path.parents[1] / "unbroken/manifests" / f"{path.name}.json").unlink()


def interrupted(*options: object) -> tuple[Job, Path]:
    """A run that was stopped in its second epoch by the program of then, and its checkpoint."""
    asked = job("--workers", 0, "--eval_interval", 0, *options)
    assert session(asked, stop_at=7)[0] == 75
    path = asked.directory / "ckpt/latest_model.pth"
    written_then(path)
    return asked, path


def test_each_of_the_25_names_has_its_present_one_and_no_present_name_is_an_earlier_one() -> None:
    assert len(WERE) == 25
    assert {was: present_name(was) for was in WERE.values()} == {was: now for now, was in WERE.items()}
    with torch.device("meta"):
        names = original_network(FOCAL_SST).state_dict()
    assert names.keys() >= WERE.keys()
    assert [name for name in names if present_name(name) != name] == []


def test_a_run_of_then_goes_on_bit_for_bit_and_says_once_that_names_changed(app: Path) -> None:
    asked, _ = interrupted("--extra_tag", "then")
    code, said = session(asked)
    assert code == 0
    words = "25 tensors have earlier names in this file: vfe.pfn_layers.0.point_gate.weight is now vfe.pfn_layers.0.pa_"
    assert said.count(words) == 1 and said.count("earlier names") == 1
    whole = job("--workers", 0, "--eval_interval", 0, "--extra_tag", "whole")
    assert session(whole)[0] == 0
    assert [line["loss"] for line in steps(asked.directory)] == [line["loss"] for line in steps(whole.directory)]
    one, other = (read_checkpoint(each.directory / "ckpt/checkpoint_epoch_2.pth") for each in (asked, whole))
    assert all(torch.equal(one["model_state"][name], other["model_state"][name]) for name in other["model_state"])
    assert one["optimizer_state"]["state"].keys() == other["optimizer_state"]["state"].keys()
    assert "earlier names" not in session(asked)[1], "what we write has the present names"


def test_what_only_looks_finds_that_all_tensors_fit(app: Path) -> None:
    asked, path = interrupted()
    assert fit_of(asked, path).complete


def test_its_weights_are_judged_and_fine_tuned_from_like_any(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked, path = interrupted()
    names = blueprint(asked).model.state_dict()
    assert judge(["--cfg_file", CONFIG, "--ckpt", str(path), "--workers", "0", "--scenes", "0"]) == 0
    assert "unused" not in capsys.readouterr().out
    tuned = job("--workers", 0, "--extra_tag", "tuned", "--pretrained_model", path, "--epochs", 1)
    assert session(tuned)[0] == 0
    (event,) = events(tuned.directory, "weights")
    assert sorted(event["loaded"]) == sorted(names)
