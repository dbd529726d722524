"""Values from the command line: `--set` as OpenPCDet has it, `--cfg-options` as MMEngine has it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from unbroken.config import ConfigError, merge_options, set_values

TREE: dict[str, Any] = {
    "OPT": {"LR": 0.001, "N": 24, "FLAG": False, "NAME": "adam", "MOMS": [0.95, 0.85], "EXTRA": None},
    "CLASSES": ["Box", "Diver"],
    "STEPS": [{"TYPE": "mask", "SIZE": (64, 64)}, {"TYPE": "voxels"}],
}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("OPT.LR", "0.01", 0.01),
        ("OPT.LR", "1", 1.0),
        ("OPT.LR", "1e-4", 1e-4),
        ("OPT.N", "80", 80),
        ("OPT.FLAG", "True", True),
        ("OPT.NAME", "sgd", "sgd"),
        ("OPT.NAME", "12", "12"),
        ("OPT.NAME", "'quoted'", "quoted"),
        ("OPT.MOMS", "0.9,0.8", [0.9, 0.8]),
        ("OPT.MOMS", "[0.9, 1]", [0.9, 1]),
        ("OPT.EXTRA", "[1]", [1]),
        ("CLASSES", "Box", ["Box"]),
        ("CLASSES", "Diver,Box", ["Diver", "Box"]),
        ("STEPS.0.TYPE", "shuffle", "shuffle"),
        ("STEPS.0.SIZE", "32,32", (32, 32)),
        ("STEPS.0.SIZE.1", "8", 8),
    ],
)
def test_set_gives_an_existing_key_a_value_of_its_type(key: str, text: str, value: object):
    before = copy.deepcopy(TREE)
    found: Any = set_values(TREE, [key, text])
    for part in key.split("."):
        found = found[int(part)] if part.isdecimal() else found[part]
    assert found == value
    assert type(found) is type(value)
    assert before == TREE


def test_set_changes_named_keys_of_a_mapping():
    assert set_values(TREE, ["OPT", "LR:0.5,N:3"])["OPT"] == {**TREE["OPT"], "LR": 0.5, "N": 3}


def test_set_takes_several_pairs_and_the_last_wins():
    assert set_values(TREE, ["OPT.N", "1", "OPT.LR", "2", "OPT.N", "3"])["OPT"]["N"] == 3


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["OPT.L", "1"], "`LR`"),
        (["OPTIM.LR", "1"], "`OPT`"),
        (["OPT.lr", "1"], "`LR`"),
        (["OPT.N", "1.5"], "an integer like 24"),
        (["OPT.N", "True"], "an integer"),
        (["OPT.LR", "fast"], "a number like 0.001"),
        (["OPT.LR", "True"], "a number"),
        (["OPT.FLAG", "1"], "True or False"),
        (["OPT.FLAG", "no"], "True or False"),
        (["OPT", "FLAGS:1"], "`FLAG`"),
        (["OPT", "1"], "key:value"),
        (["OPT.MOMS.2", "1"], "0 to 1"),
        (["OPT.LR.X", "1"], "nothing below it"),
        (["OPT.MOMS", "a,b"], "a number"),
        (["OPT.N"], "pairs"),
    ],
)
def test_set_refuses_what_does_not_fit_and_names_the_option(words: list[str], part: str):
    with pytest.raises(ConfigError) as caught:
        set_values(TREE, words)
    assert part in str(caught.value)
    assert str(caught.value).startswith("--set")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("a.b=1", 1),
        ("a.b=1e-3", 1e-3),
        ("a.b=true", True),
        ("a.b=None", None),
        ("a.b=word", "word"),
        ("a.b='1'", "1"),
        ("a.b=/kaggle/input/x.pth", "/kaggle/input/x.pth"),
        ("a.b=x=y", "x=y"),
        ("a.b=", ""),
        ("a.b=1,2", [1, 2]),
        ("a.b=[1,2]", [1, 2]),
        ("a.b=(1,2)", (1, 2)),
        ("a.b=[(a,b),(c,d)]", [("a", "b"), ("c", "d")]),
        ("a.b=[]", []),
        ("a.b={'x': 1}", {"x": 1}),
        ("OPT.NEW.deep=3", 3),
        ("OPT.MOMS.0=0.5", 0.5),
        ("STEPS.1.TYPE=other", "other"),
        ("STEPS.0.SIZE.0=32", 32),
    ],
)
def test_options_set_any_key_also_a_new_one(option: str, value: object):
    before = copy.deepcopy(TREE)
    found: Any = merge_options(TREE, [option])
    for part in option.partition("=")[0].split("."):
        found = found[int(part)] if part.isdecimal() else found[part]
    assert found == value
    assert type(found) is type(value)
    assert before == TREE


def test_an_option_with_a_mapping_merges_into_the_one_there_is():
    assert merge_options(TREE, ["OPT={'N': 1}"])["OPT"] == {**TREE["OPT"], "N": 1}


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("OPT.LR", "key=value"),
        ("=1", "key=value"),
        ("OPT.LR.X=1", "nothing below it"),
        ("OPT.MOMS.7=1", "0 to 1"),
        ("STEPS.first.TYPE=1", "a list of 2"),
    ],
)
def test_options_refuse_what_does_not_fit_and_name_the_option(option: str, part: str):
    with pytest.raises(ConfigError) as caught:
        merge_options(TREE, [option])
    assert part in str(caught.value)
    assert str(caught.value).startswith("--cfg-options")
