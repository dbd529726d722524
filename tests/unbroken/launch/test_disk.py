"""Whether the disk will hold a training: the golden table of the pure part, and the words."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.golden.launch_facts import job
from unbroken.launch.disk import DiskForecast, DiskUse, Room, SavePolicy, Sizes, disk_lines, forecast_disk

MB, AMPLE = 10**6, 10**12
SEED = 8
BY_STEPS = SavePolicy(steps=80)
BY_EPOCHS = SavePolicy(epochs=1, seconds=300.0, steps_per_epoch=10, keep_last=3, rolling=True)


def forecast(
    policy: SavePolicy, room: int = AMPLE, *, done: int = 0, total: int | None = 400, **more: object
) -> DiskForecast:
    known = {"sizes": Sizes(save=38 * MB), "stored": DiskUse(), "step_s": None} | more
    return forecast_disk(
        policy,
        known["sizes"],  # type: ignore[arg-type]
        known["stored"],  # type: ignore[arg-type]
        Room(left=room),
        done=done,
        total=total,
        step_s=known["step_s"],  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("policy", "facts", "more_mb", "peak_mb"),
    [
        (BY_STEPS, {}, 190, 190),  # 80, 160, 240, 320, 400
        (BY_STEPS, {"total": 390}, 190, 190),  # the last step is one too
        (BY_STEPS, {"done": 240, "stored": DiskUse(named=3)}, 76, 76),
        (replace(BY_STEPS, keep_last=2), {}, 76, 114),  # one more in the moment of writing
        (replace(BY_STEPS, keep_last=1), {}, 76, 114),  # never fewer than two
        (replace(BY_STEPS, keep_last=2), {"done": 240, "stored": DiskUse(named=3)}, -38, 38),
        (replace(BY_STEPS, keep_last=9), {}, 190, 190),
        (BY_STEPS, {"sizes": Sizes(save=38 * MB, best=10 * MB)}, 200, 200),
        (BY_STEPS, {"sizes": Sizes(save=38 * MB, best=10 * MB), "stored": DiskUse(best=True)}, 190, 190),
        (BY_STEPS, {"sizes": Sizes(save=38 * MB, per_step=1000.0)}, 190.4, 190.4),
        (SavePolicy(), {}, 38, 38),  # only at the end
        (SavePolicy(seconds=300.0), {"step_s": 3.0}, 152, 152),  # every 100 steps, each with a name of its own
        (BY_EPOCHS, {}, 114, 152),  # the clock is not known: the ends of epochs alone
        (BY_EPOCHS, {"step_s": 60.0}, 152, 190),  # every 5 steps under the rolling name, which stays
        (BY_EPOCHS, {"step_s": 60.0, "stored": DiskUse(named=3, rolling=True), "done": 200}, 0, 38),
        (replace(BY_EPOCHS, epochs=7), {}, 114, 152),
    ],
)
def test_what_a_training_will_have_written(
    policy: SavePolicy, facts: dict[str, object], more_mb: float, peak_mb: float
) -> None:
    found = forecast(policy, **facts)  # type: ignore[arg-type]
    assert (found.more, found.peak) == (more_mb * MB, peak_mb * MB)
    assert found.full_at is None and found.fits is None


@pytest.mark.parametrize(
    ("room_mb", "policy", "full_at", "fits"),
    [
        (190, BY_STEPS, None, None),
        (189, BY_STEPS, 400, 3),  # while the fourth is written, three and that one are there
        (151, BY_STEPS, 320, 2),
        (114, BY_STEPS, 320, 2),
        (113, BY_STEPS, 240, None),  # not even two and the one that is written
        (0, BY_STEPS, 80, None),
        (113, replace(BY_STEPS, keep_last=4), 240, None),
        (152, replace(BY_STEPS, keep_last=4), 400, 3),
    ],
)
def test_where_it_will_be_full_and_what_fits(
    room_mb: int, policy: SavePolicy, full_at: int | None, fits: int | None
) -> None:
    found = forecast(policy, room_mb * MB)
    assert (found.full_at, found.fits) == (full_at, fits)
    if fits is not None:
        assert forecast(replace(policy, keep_last=fits), room_mb * MB).full_at is None
        assert forecast(replace(policy, keep_last=fits + 1), room_mb * MB).full_at is not None


def test_a_training_that_is_complete_needs_nothing() -> None:
    found = forecast(BY_STEPS, 0, done=400)
    assert (found.more, found.full_at) == (0, None)


def test_records_alone_can_fill_a_disk_between_two_saves() -> None:
    found = forecast(BY_STEPS, 40 * MB, sizes=Sizes(save=38 * MB, per_step=100_000.0))
    assert found.full_at == 80 and found.fits is None
    found = forecast(SavePolicy(), 3 * MB, sizes=Sizes(save=MB, per_step=100_000.0))
    assert found.full_at == 31


def test_the_count_agrees_with_a_disk_that_is_really_filled_by_the_rules() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for _ in range(300):
        keep = chance.choice([None, 2, 3, 5])
        every, total = chance.randint(1, 30), chance.randint(1, 300)
        policy = SavePolicy(steps=every, keep_last=keep)
        room = chance.randint(0, 3000)
        files, full_at, peak = 0, None, 0
        for step in range(1, total + 1):
            if step % every == 0 or step == total:
                peak = max(peak, (files + 1) * 100)
                if full_at is None and (files + 1) * 100 > room:
                    full_at = step
                files = min(files + 1, keep) if keep is not None else files + 1
        found = forecast(policy, room, total=total, sizes=Sizes(save=100))
        assert (found.more, found.peak, found.full_at) == (files * 100, peak, full_at)


def test_a_policy_of_a_save_in_every_step_is_counted_in_no_time() -> None:
    assert forecast(SavePolicy(steps=1, keep_last=3), total=10**9, sizes=Sizes(save=100)).more == 300


def test_the_words_name_the_setting_of_each_front_door() -> None:
    tight = forecast(BY_STEPS, 189 * MB)
    asked = job()
    assert disk_lines(replace(asked, flags={"keep_last": "max_ckpt_save_num"}), tight) == [
        "warning: disk: 38.0 MB a save, every 80 steps, all kept: 190.0 MB more until step 400; 189.0 MB free: "
        "full at step 400",
        "  with --max_ckpt_save_num 3 it fits: 114.0 MB more until step 400",
    ]
    key = {"keep_last": "default_hooks.checkpoint.max_keep_ckpts"}
    by_key = replace(asked, flags=key, override="--cfg-options {key}={value}")
    assert "with --cfg-options default_hooks.checkpoint.max_keep_ckpts=3 it fits" in disk_lines(by_key, tight)[1]
    assert "with open_run(..., keep_last=3) it fits" in disk_lines(replace(asked, recipe="open_run"), tight)[1]


def test_the_words_where_it_fits_or_is_not_known() -> None:
    assert disk_lines(job(), forecast(BY_EPOCHS, 12 * 10**9, total=40)) == [
        "disk: 38.0 MB a save, every epoch and every 300 s, the last 3 kept: 114.0 MB more until step 40; 12.0 GB free"
    ]
    assert disk_lines(job(), forecast(SavePolicy(seconds=60.0), AMPLE)) == [
        "disk: 38.0 MB a save, every 60 s, all kept: 38.0 MB more until step 400, and those by the clock, "
        "which are counted once steps were timed; 1.0 TB free"
    ]
    assert disk_lines(job(), forecast(BY_STEPS, 10**9, total=None)) == [
        "disk: 38.0 MB a save, every 80 steps, all kept; 1.0 GB free: room for 26 saves"
    ]
    hopeless = disk_lines(job(), forecast(BY_STEPS, 10))
    assert "no number of kept checkpoints fits: the fewest need 114.0 MB" in hopeless[1]
