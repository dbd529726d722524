"""A run that this very process has open, in a cell of a notebook for instance: it is said so, and it can be closed."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.processes import PATIENCE_S
from tests.unbroken.train.test_start import Quiet
from unbroken.train import Exit, open_run

CELLS = [
    'from unbroken.train import open_run\nleft_open = open_run("output", tag="t")',
    'open_run("output", tag="t")',
    "left_open.close()",
    """\
with open_run("output", tag="t") as run:
    run.track(counters={"n": 0})
    for _ in run.batches(list(range(8)), batch_size=4, epochs=2):
        run.end_step(loss=1.0)
        run.stop("the test")""",
]


def test_a_run_that_this_process_has_open_is_named_as_its_own_and_can_be_closed(tmp_path: Path) -> None:
    first = open_run(tmp_path, tag="t", console=Quiet())
    try:
        with pytest.raises(Exit) as held:
            open_run(tmp_path, tag="t", console=Quiet())
        assert held.value.code == 11
        assert "this process has the run open itself, since" in held.value.reason
        assert "call close() on what open_run returned then" in held.value.reason
        assert "under another name" not in held.value.reason
    finally:
        first.close()
    first.close()
    with open_run(tmp_path, tag="t", console=Quiet()):
        pass


def _opened_in_another_process(root: Path, told: Connection) -> None:
    try:
        open_run(root, tag="t", console=Quiet())
    except Exit as held:
        told.send((held.code, held.reason))


def test_a_process_that_multiprocessing_started_is_told_that_it_is_one_of_several(tmp_path: Path) -> None:
    """As in a script without a guard, whose loader workers run it again, or under torch.multiprocessing.spawn."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with open_run(tmp_path, tag="t", console=Quiet()) as run:
        run.track(counters={"n": 0})
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=_opened_in_another_process, args=(tmp_path, theirs))
        process.start()
        theirs.close()
        code, reason = ours.recv()
        process.join(PATIENCE_S)
        for _ in run.batches(list(range(4)), batch_size=4, epochs=1):
            run.end_step(loss=1.0)
    assert code == 11 and f"held by process {os.getpid()} on" in reason
    words = f"several processes were started together (multiprocessing, from process {os.getpid()})"
    assert words in reason and 'if __name__ == "__main__"' in reason


def test_closing_a_run_saves_what_is_not_saved(tmp_path: Path) -> None:
    run = open_run(tmp_path, tag="t", console=Quiet())
    run.track(counters={"n": 0})
    for _ in run.batches(list(range(8)), batch_size=4, epochs=2):
        run.end_step(loss=1.0)
        break
    run.close()
    assert (tmp_path / "t" / "iter_1.pth").is_file()


def test_a_process_of_several_that_is_not_told_where_the_others_are_is_refused_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(Exit) as refused:
        open_run(tmp_path, tag="t", console=Quiet())
    assert refused.value.code == 2 and "no MASTER_ADDR, MASTER_PORT" in refused.value.reason
    assert list(tmp_path.iterdir()) == []


def test_in_a_real_kernel_the_words_are_those_for_a_notebook(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    client = NotebookClient(
        book,
        timeout=int(PATIENCE_S),
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": tmp_path}},
    )
    client.execute()
    said = ["".join(out.get("text", "") for out in cell.outputs) for cell in book.cells]
    assert "plan: REFUSE" in said[1] and "this process has the run open itself" in said[1]
    assert "to continue, run the cells of this notebook again, in order" in said[3]
    journal = (tmp_path / "output/t/unbroken/journal.jsonl").read_text("utf-8")
    assert "ipykernel_launcher" not in "".join(said) + journal
    assert '"command":"(run the cells of this notebook again, in order)"' in journal
