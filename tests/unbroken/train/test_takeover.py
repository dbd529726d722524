"""What a file of another program does not hold, and where in the data its counters lead."""

from __future__ import annotations

import pytest

from unbroken.train.data.order import Order
from unbroken.train.data.takeover import Foreign, as_they_are, place_in_data, what_it_lacks

SIZE, BATCH = 9, 2  # five micro-batches an epoch, the last of one sample


def place(*, step: int, epochs: int | None, ends_epoch: bool = False, accumulate: int = 1) -> tuple[int, str]:
    foreign = Foreign(step=step, epochs=epochs, ends_epoch=ends_epoch)
    return place_in_data(foreign, Order(size=SIZE, seed=0), batch_size=BATCH, accumulate=accumulate)


@pytest.mark.parametrize(
    ("step", "epochs", "ends_epoch", "accumulate", "position"),
    [
        (10, 2, True, 1, 18),
        (10, 2, False, 1, 18),
        (12, 2, False, 1, 22),
        (15, 2, False, 1, 27),  # saved after the last step of an epoch whose end was not counted yet
        (2, 0, False, 1, 4),
        (18, 2, True, 1, 18),  # nine steps an epoch: its name says that it is the end of one
        (21, 2, False, 1, 18),  # and in the middle of one, nothing is believed
        (7, 2, False, 1, 18),
        (6, 0, False, 1, 0),
        (7, 2, False, 2, 22),  # three steps an epoch
        (12, None, False, 1, 22),  # only steps were counted
        (10, None, False, 1, 18),
    ],
)
def test_the_place_in_the_data_loses_no_epoch_and_repeats_none(
    step: int, epochs: int | None, ends_epoch: bool, accumulate: int, position: int
) -> None:
    assert place(step=step, epochs=epochs, ends_epoch=ends_epoch, accumulate=accumulate)[0] == position


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (5, "after 1 whole epoch the next begins at its start: no sample is lost"),
        (
            7,
            "after 1 whole epoch, 2 of 5 steps of the next are done on samples that the file does not name: the rest "
            "follows in this run's order, so in this one epoch some samples come twice and some not at all",
        ),
        (
            11,
            "11 steps are not 1 whole epoch of 5 steps and a part of one (another batch size?): the epoch in progress "
            "begins again at its start, no sample is lost",
        ),
    ],
)
def test_the_place_is_said_in_a_sentence(step: int, words: str) -> None:
    assert place(step=step, epochs=1)[1] == words


def test_a_stream_of_samples_is_continued_by_the_steps() -> None:
    foreign = Foreign(step=12, epochs=None, ends_epoch=False)
    position, words = place_in_data(foreign, Order(size=SIZE, seed=0, shuffle="stream"), batch_size=BATCH, accumulate=1)
    assert position == 24 and words.startswith("data position taken from the step: 24 samples were used; ")


def test_each_thing_that_a_file_lacks_is_one_line() -> None:
    lines = what_it_lacks(["scheduler", "scaler", "counters"], best_known=False, config_known=False)
    assert [line.partition(":")[0] for line in lines] == [
        "the file has no random state",
        "the file has no lr_scheduler",
        "the file has no gradient scaler",
        "the file has no state of counters",
        "the file has no best score",
        "the config it was written under is not known",
    ]
    assert len(what_it_lacks([], best_known=True, config_known=True)) == 1


def test_states_are_taken_as_they_are_where_no_application_translates() -> None:
    parts = {"model": {}}
    assert as_they_are(parts, "file").parts is parts and not as_they_are(parts, "file").remarks
