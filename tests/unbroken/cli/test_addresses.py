"""An address of the web or of an object store where a path is asked for: what it is, and how to get what it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unbroken.cli.typing_commands import Type, contents
from unbroken.errors import UsageError
from unbroken.storage import is_remote, require_local

WEB = "https://example.org/models/iter_8000.pth"
TRAIN = ["train", "mapsage", "small.py"]
COMMANDS = {
    "resume": [*TRAIN, "--ckpt", WEB],
    "fine-tune": [*TRAIN, "--tag", "new", "--pretrained_model", "s3://bucket/best.pth"],
    "load_from": [*TRAIN, "--tag", "new", "--cfg-options", f"load_from={WEB}"],
    "load_from and resume": [*TRAIN, "--tag", "new", "--cfg-options", f"load_from={WEB}", "resume=True"],
    "backbone": [*TRAIN, "--tag", "new", "--cfg-options", f"model.backbone.init_cfg={{'checkpoint':'{WEB}'}}"],
    "search": [*TRAIN, "--tag", "new", "--search", "s3://bucket/runs"],
    "folder": [*TRAIN, "--work-dir", "gs://bucket/runs/one"],
    "backup while training": [*TRAIN, "--backup", "s3://bucket/backups"],
    "config": ["train", "mapsage", "https://example.org/config.py"],
    "why": ["why", "mapsage", "small.py", "--ckpt", "hf://someone/model/iter_1.pth"],
    "inspect": ["inspect", WEB],
    "verify": ["verify", "work_dirs/small", WEB],
    "show": ["show", "https://example.org/runs/one"],
    "ls": ["ls", "s3://bucket/runs"],
    "backup": ["backup", "work_dirs/small", "s3://bucket/backups"],
    "restore": ["restore", "work_dirs/small", "--from", "s3://bucket/backups"],
    "pack": ["pack", "work_dirs/small", "ftp://example.org/out.zip"],
    "unpack": ["unpack", "https://example.org/out.zip"],
    "compare": ["compare", "work_dirs/small", "https://example.org/runs/one"],
    "audit": ["audit", "https://example.org/runs/one"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_every_command_says_that_an_address_is_to_be_fetched_first(here: Path, type_: Type, words: list[str]) -> None:
    before = contents(here)
    answer = type_(*words)
    assert answer.code == 2, answer.out + answer.err
    (address,) = re.findall(r"[a-z0-9]+://[^' ]+", " ".join(words))
    assert f"{address}: this is an address" in answer.err and "Fetch it" in answer.err
    assert "Did you mean" not in answer.err and "Traceback" not in answer.err
    changed = {name for name, what in contents(here).items() if before.get(name) != what}
    assert changed <= {"work_dirs/small/unbroken/holder.json", "work_dirs/small/unbroken/lock"}


def test_the_command_that_fetches_it_is_the_one_of_its_kind() -> None:
    for address, command in {
        WEB: f"`wget {WEB}`",
        "s3://bucket/a.pth": "`aws s3 cp s3://bucket/a.pth .`",
        "gs://bucket/a.pth": "`gcloud storage cp gs://bucket/a.pth .`",
        "open-mmlab://resnet50_v1c": "Fetch it first",
        "torchvision://resnet50": "Fetch it first",
    }.items():
        for named in (address, Path(address)):  # a path has lost a slash
            with pytest.raises(UsageError) as caught:
                require_local(named)
            assert command in str(caught.value) and address in str(caught.value)


@pytest.mark.parametrize("path", ["C:/runs/a.pth", "C:\\runs", "a.pth", "./a:b/c.pth", "/abs/https:/x", "note:this"])
def test_a_path_is_no_address(path: str) -> None:
    assert not is_remote(path)
    require_local(path)


def test_a_note_may_be_an_address(here: Path, type_: Type) -> None:
    assert type_("pin", "work_dirs/small", "iter_4.pth", "--note", WEB).code == 0
