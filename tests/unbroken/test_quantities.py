"""Durations and sizes as people write them: what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unbroken.quantities import BadQuantity, counted, duration_s, size_bytes, size_text

NO_DURATIONS = ["", " ", "12", "12.5", "soon", "-5m", "1h-5m", "12:00", "1:60:00", "1:00:60", "1-24:00:00", "1m1h", "h"]
NO_DURATIONS += [
    "1h 30",
    "1e3s",
    "inf",
    "nan",
    "٣h",
    "1mo",
    "4 w",
    "9" * 30 + "d",
    "1:00:00 h",
    "1h,30m",
    "12h\x00",
    "12 hours",
]
NO_SIZES = [
    "",
    "much",
    "-1GB",
    "0",
    "0GB",
    "20",
    "1000000",
    "20XB",
    "20G",
    "20M",
    "0.1B",
    "GB",
    "1e3MB",
    "9" * 40 + "TB",
]
NO_SIZES += ["inf", "1e3MB", "9" * 40 + "TB", "٣GB", "20 G B", "20GBs", "1GB 500MB", "1,5GB"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12:00:00", 43_200), ("1-00:00:00", 86_400), ("2-03:04:05", 183_845), ("1-12", 129_600), ("1-12:30", 131_400),
        ("100:00:00", 360_000), ("0:00:01.5", 1.5), ("2d", 172_800), ("1h30m", 5_400), ("1H30M", 5_400), ("90m", 5_400),
        ("1d2h3m4s", 93_784), ("45s", 45), ("500ms", 0.5), ("1.5h", 5_400), (".5h", 1_800), (" 12 h ", 43_200),
        ("1 h 30 m", 5_400), ("2D", 172_800), ("1m500ms", 60.5), ("0", 0), ("0h", 0),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_and_slurm_write_them(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GB", 20_000_000_000), ("20GiB", 20 * 2**30), ("500MB", 500_000_000), ("1.5 gib", 1_610_612_736), ("7b", 7),
        ("300B", 300), ("1kb", 1_000), ("1 KiB", 1_024), ("2TB", 2 * 10**12), ("2TiB", 2 * 2**40), ("1PB", 10**15),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("read", "text"), [(duration_s, text) for text in NO_DURATIONS] + [(size_bytes, text) for text in NO_SIZES]
)
def test_what_could_be_read_in_two_ways_or_in_none_is_refused(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(BadQuantity, match=r"expected a (time|size)") as mistake:
        read(text)
    assert len(str(mistake.value)) < 200


def test_a_number_without_a_unit_is_answered_with_what_it_could_have_meant() -> None:
    with pytest.raises(BadQuantity, match=r"with its unit \(12s, 12m or 12h\), found '12'"):
        duration_s("12")
    with pytest.raises(BadQuantity, match=r"with its unit \(20B, 20MB or 20GB\), found '20'"):
        size_bytes("20")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 KB"),
        (999_949, "999.9 KB"),
        (999_960, "1.0 MB"),
        (9.4e9, "9.4 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes_are_told_in_a_fitting_unit(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


def test_one_of_a_kind_is_told_from_several() -> None:
    assert [counted(number, "step") for number in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert counted(2, "entry", "entries") == "2 entries"
