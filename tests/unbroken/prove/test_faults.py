"""Each planted fault is found, and the words that are said of it lead to it."""

import re

import pytest

from tests.unbroken.prove.proofs import HERE, proof_of

NOT_IN_STATE = "something that a resume begins anew and the state does not hold"
FROM_OUTSIDE = "something that begins anew in each process or comes from outside"
# By the script: what is said to be the likely cause.
AFTER_A_RESUME = {
    "forgotten_schedule": r"`schedule` \(StepLR\) lives in this process and is not tracked",
    "forgotten_ema": r"`teacher` \(Sequential\) lives in this process and is not tracked",
    "optimizer_in_a_list": r"`optimizers\[0\]` \(AdamW\) lives in this process and is not tracked",
    "numpy_generator": r"`chance` \(RandomState\) lives in this process and is not tracked",
    "batch_drawn_ahead": r"`batches` \(generator\) holds a place in its data",
    "local_counter": r"`seen` changes from step to step and is not tracked",
    "replay_buffer": r"`buffer` changes from step to step",
    "early_stop_counter": r"`patience\.bad` change from step to step",
    "counts_in_workers": r"`dataset\.read` changes from step to step",
    "closure_state": r"`factor\.calls\[0\]` changes from step to step.*it enters at once: loss of the first step",
    "enumerate_restarts": r"^enumerate\(\.\.\.\) counts from 0 in this session.*takes run\.batch",
    "hard_samples_first": r"`losses\[\.\.\.\]` changes from step to step",
    "iterator_of_c": r"`scales` \(cycle\) holds a place in its data",
    "cache_in_workers": r"`dataset\.kept` changes from step to step",
    "running_digest": NOT_IN_STATE + ".*an iterator.*it enters at once: loss of the first step after the resume",
    "moments_beside": NOT_IN_STATE + ".*what an optimizer keeps outside.*it enters after the loss",
    "refused_later": "the training cannot be resumed: .*exit code 12.*this buffer cannot be filled from a state",
    "named_by_time": r"each session gives the run another folder or name \(run_\d+-\w+, then run_\d+",
}
WITHOUT_ANY_KILL = {
    "time_of_day": FROM_OUTSIDE + ".*the time",
    "unseeded_transform": FROM_OUTSIDE + ".*a generator without a seed",
    "unseeded_generator_before": FROM_OUTSIDE,
    "file_counter": FROM_OUTSIDE + ".*a file that the script itself writes and reads",
    "process_in_workers": "the loader workers",
}
BY_HASH = {
    "order_of_a_set": "the order of a set, or a hash of text",
    "left_behind": "something that the first training left outside of its run: all later ones are equal",
}
# What looks like a fault and is none: the library keeps it.
KEPT = ("non_persistent_buffer", "leaf_tensor")


@pytest.mark.parametrize("script", AFTER_A_RESUME)
def test_what_a_resume_begins_anew_is_found_and_named(script, tmp_path):
    proof = proof_of(script, tmp_path)
    assert not proof.exact
    assert re.search(AFTER_A_RESUME[script], " ".join(proof.likely), re.DOTALL), proof.lines
    trained_on = script not in ("refused_later", "named_by_time")
    assert (
        any("tried in peace once more: " in line and "equal bit for bit" in line for line in proof.lines) == trained_on
    )


@pytest.mark.parametrize("script", WITHOUT_ANY_KILL)
def test_what_differs_without_any_kill_is_not_called_a_fault_of_the_resume(script, tmp_path):
    proof = proof_of(script, tmp_path)
    assert not proof.exact
    assert re.search(WITHOUT_ANY_KILL[script], " ".join(proof.likely), re.DOTALL), proof.lines
    assert any(re.search(r"tried in peace once more: \d+ of \d+ tensors .* differ", line) for line in proof.lines)


@pytest.mark.parametrize("script", BY_HASH)
def test_what_comes_from_a_hash_is_told_from_what_does_not(script, tmp_path):
    proof = proof_of(script, tmp_path, by_hash=True)
    assert not proof.exact
    assert re.search(BY_HASH[script], " ".join(proof.likely), re.DOTALL), proof.lines


@pytest.mark.parametrize("script", KEPT)
def test_what_the_library_keeps_passes(script, tmp_path):
    proof = proof_of(script, tmp_path)
    assert proof.exact and not proof.likely, proof.lines


def test_each_script_is_proved_here():
    scripts = {path.stem for path in (HERE / "faults").glob("*.py")} - {"sound", "two_runs", "hangs"}
    assert scripts == AFTER_A_RESUME.keys() | WITHOUT_ANY_KILL.keys() | BY_HASH.keys() | {*KEPT}
