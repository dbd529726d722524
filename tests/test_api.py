"""The public names: each documents its arguments, what it returns and raises; what is shown runs, and happens."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import re
import signal
import textwrap
from argparse import ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from docs.api import Entry, public
from docs.build import error_classes

import unbroken as u
import unbroken.errors
from unbroken import config as c
from unbroken import demo
from unbroken import storage as s
from unbroken import train as t
from unbroken.errors import (
    ConfigError,
    DamagedFile,
    Incompatible,
    ProcessLost,
    Refused,
    RunHeld,
    UnreadableSample,
    UsageError,
    WorkersKilled,
)
from unbroken.fields import BadField
from unbroken.launch import Resume, decide, gather
from unbroken.prove import Settings, prove

ENTRIES = [entry for entries in public().values() for entry in entries]
EXAMPLES = [entry for entry in ENTRIES if entry.docstring.example]
DOORS = ("unbroken", "unbroken.config", "unbroken.train", "unbroken.storage", "unbroken.demo")
FAMILY = {kind.__name__ for kind in (*error_classes(), t.Exit, u.LeadsOut, s.NotOrdinary, BadField, ArgumentTypeError)}
DISK, NOWHERE, L = s.Disk(), Path("nowhere") / "file", u.ITERATIONS
QUIET = t.PlainConsole()
SAMPLES = {"format": "mine 1", "train": 1, "val": 1}


def raised_in(function: Callable[..., object]) -> set[str]:
    """The errors that the body of a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)} & FAMILY


def lacking(entry: Entry) -> Iterator[str]:
    """What the docstring of a public name does not say."""
    said, function = entry.docstring, entry.function
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    given = [stars.get(each.kind, "") + each.name for each in entry.parameters]
    if not said.summary or (function and not said.summary.endswith((".", ":"))):
        yield "a sentence that says what it is"
    if given and list(said.arguments) != given:
        yield f"its arguments in their order: {given}, and not {list(said.arguments)}"
    for name, text in said.arguments.items():
        if set(re.findall(r"\w+", text.lower())) <= {*re.findall("[a-z]+", name.lower()), "the", "a", "of", "its"}:
            yield f"what `{name}` means"
    nothing = [each.name for each in entry.parameters if each.default is None]
    for name in (each for each in nothing if "None" not in said.arguments.get(each, "")):
        yield f"what None means for `{name}`"
    if function is None or isinstance(entry.value, type):
        return
    returned = str(inspect.signature(function).return_annotation).strip("\"'")
    gives_nothing = returned in ("None", "NoReturn", "Iterator[None]")
    if not (gives_nothing or said.returns or re.match("(Return|Yield|Whether) ", said.summary)):
        yield f"what it returns ({returned})"
    if undocumented := raised_in(function) - said.raises.keys():
        yield f"that it raises {', '.join(sorted(undocumented))}"


def test_every_public_name_stands_in_the_page_once() -> None:
    listed = [(entry.name, id(entry.value)) for entry in ENTRIES if entry.owner is None]
    assert len(listed) == len(set(listed))
    for door in map(import_module, DOORS):
        assert [name for name in door.__all__ if (name, id(getattr(door, name))) not in listed] == []
    errors = {name for name in vars(unbroken.errors) if name.isupper()} | {kind.__name__ for kind in error_classes()}
    assert errors <= {name for name, _ in listed}


def test_every_link_of_the_page_s_index_leads_to_a_heading_of_its_own() -> None:
    page, counts = (Path(__file__).parents[1] / "docs" / "api.md").read_text("utf-8"), Counter[str]()
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"[^\w -]", "", each.lower()) for each in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)]
    anchors = set[str]()
    for anchor in (each.replace(" ", "-") for each in headings):
        anchors.add(f"{anchor}-{counts[anchor]}" if counts[anchor] else anchor)
        counts[anchor] += 1
    links = re.findall(r"\]\(#([\w-]+)\)", page)
    assert len(links) == len(set(links)) > 100 and set(links) <= anchors


def test_every_public_name_documents_each_argument_what_it_returns_and_what_it_raises() -> None:
    assert [f"{entry.module}.{entry.name} lacks {what}" for entry in ENTRIES for what in lacking(entry)] == []


def test_the_chinese_page_has_every_verb_of_a_loop_with_its_arguments() -> None:
    page = (Path(__file__).parents[1] / "docs" / "api-zh.md").read_text("utf-8")
    verbs = [entry for entry in ENTRIES if entry.name.startswith(("open_run", "TrainingRun."))]
    assert [each.name for each in verbs if f"`{each.name.replace('TrainingRun', 'run')}" not in page] == []
    rows = {each.name: each for verb in verbs[:3] for each in verb.parameters}
    assert len(rows) > 35 and [name for name in rows if f"\n| `{name}` |" not in page] == []
    assert f"```python\n{verbs[0].docstring.example}\n```" in page


def test_what_the_page_on_upgrading_says_to_type_is_there() -> None:
    page = (Path(__file__).parents[1] / "docs" / "upgrading.md").read_text("utf-8")
    now = [line.split(" | ")[1] for line in page.splitlines() if line.count(" | ") == 1]
    verbs = [*dir(t.TrainingRun), "session_log"]
    assert {name for line in now for name in re.findall(r"`run\.(\w+)", line)} <= set(verbs)
    arguments = inspect.signature(t.TrainingRun.batches).parameters
    given = {name for line in now if "run.batches" in line for name in re.findall(r"(\w+)=", line)}
    assert given and given <= arguments.keys()
    for line in now:
        for door, name in re.findall(r"from ([\w.]+) import (\w+)", line):
            assert hasattr(import_module(door), name)
    assert len(now) > 12


def test_what_a_docstring_lacks_is_found() -> None:
    def told(path: str, most: int | None = None) -> int:
        """Some text

        Args:
            path: The path.
        """
        raise UsageError(path, str(most))

    entry = Entry(module="tests", name="told", value=told)
    assert [re.split("[:(]", what)[0].strip() for what in lacking(entry)] == [
        "a sentence that says what it is",
        "its arguments in their order",
        "what `path` means",
        "what None means for `most`",
        "what it returns",
        "that it raises UsageError",
    ]


# -- examples --------------------------------------------------------------------------------------------------------


def data_of(samples: int = 64) -> torch.utils.data.TensorDataset:
    return torch.utils.data.TensorDataset(torch.rand(samples, 3), torch.rand(samples, 1))


def opened(*, inputs: int = 3, **how: Any) -> t.TrainingRun:
    """A run of a small network in the current folder."""
    run = t.open_run("output", tag="small", console=QUIET, **how)
    model = torch.nn.Linear(inputs, 1)
    try:
        run.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    except BaseException:
        run.close()
        raise
    return run


@pytest.mark.parametrize("entry", EXAMPLES, ids=lambda entry: str(entry.name))
def test_every_example_runs(entry: Entry, tmp_path: Path) -> None:
    example = entry.docstring.example
    if ">>>" in example:
        test = doctest.DocTestParser().get_doctest(example, {}, entry.name, None, None)
        complaints: list[str] = []
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=complaints.append)
        assert test.examples and complaints == []
        return
    torch.manual_seed(0)
    model, data, counters = torch.nn.Linear(3, 1), data_of(), {"seen": 0}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train_on(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    names = {"torch": torch, "data": data, "model": model, "optimizer": optimizer, "counters": counters}
    names |= {"train_on": train_on, entry.name: entry.value}
    code = compile(example, entry.name, "exec", dont_inherit=True)
    with chdir(tmp_path):
        if not entry.name.startswith("TrainingRun."):
            exec(code, names)
            return
        with t.open_run("output", tag="example", console=QUIET) as run:
            run.track(model=model, optimizer=optimizer)
            exec(code, names | {"run": run})


# -- errors ----------------------------------------------------------------------------------------------------------


class Failing:
    """A data set whose third sample cannot be read, or kills the worker that reads it."""

    def __init__(self, *, kills: bool = False) -> None:
        self.here, self.kills = os.getpid(), kills

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 2 and self.kills and os.getpid() != self.here:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2 and not self.kills:
            raise ValueError("it is torn")
        return torch.zeros(3)


def read_all(dataset: Any, *, workers: int = 0) -> None:
    for _ in t.one_pass(dataset, batch_size=2, workers=workers):
        pass


@contextmanager
def a_run(**how: Any) -> Iterator[t.TrainingRun]:
    """A run whose errors are raised as they are: at the end of a process its exit code counts."""
    try:
        with opened(**how) as run:
            yield run
    except t.Exit as ending:
        raise ending.__cause__ or ending from None


def looping(dataset: Any, **how: Any) -> None:
    with a_run() as run:
        for _ in run.batches(dataset, batch_size=2, epochs=1, **how):
            run.end_step()


def before_the_loop(call: Callable[[t.TrainingRun], object]) -> None:
    with a_run() as run:
        call(run)


def within(call: Callable[[t.TrainingRun], object]) -> None:
    """Call it at the boundaries of a loop."""
    with a_run() as run:
        for _ in run.batches(data_of(4), batch_size=2, epochs=1, between=lambda: call(run)):
            run.end_step()


def asked_to_stop(run: t.TrainingRun) -> None:
    signal.raise_signal(signal.SIGTERM)
    run.poll()


def tracked_again() -> None:
    looping(data_of(4))
    with a_run(inputs=4):
        pass


class Tight(c.Section):
    """A field that says nothing of its effect."""

    width: int = 3


def blueprint(_job: u.Job) -> t.Blueprint:
    return t.Blueprint(model=torch.nn.Linear(5, 7))


def task(_job: u.Job, _say: Callable[[str], None]) -> t.Task:
    """A task that is asked to stop at its first evaluation."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def evaluate(_progress: t.Progress, poll: Callable[[], None]) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        poll()
        return {}

    return t.Task(
        model=model,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.StepLR(optimizer, 1),
        dataset=data_of(4),
        batch_size=2,
        steps=2,
        loss=lambda batch: {"loss": (model(batch[0]) - batch[1]).square().mean()},
        validation=t.Validation(evaluate=evaluate, every=t.Every(steps=1)),
    )


def a_job(**how: Any) -> u.Job:
    given = {"recipe": "test", "tag": "small", "directory": Path("output/small"), "config": {}, "seed": 0}
    return u.Job(**{**given, "effects": c.Effects(), "total_steps": 2, "task": "tests.test_api:task", **how})


def launched(job: u.Job) -> None:
    with t.launch(job, console=QUIET) as run:
        t.fit(run, task(job, print))


def launched_twice() -> None:
    with t.launch(a_job(), console=QUIET):
        t.launch(a_job(), console=QUIET)


def by_shapes(weights: object) -> None:
    torch.save(weights, "weights.pth")
    job = a_job(start=u.Start(weights=Path("weights.pth")), blueprint="tests.test_api:blueprint")
    t.decide_by_shapes(job, gather(job))


def taken_over(scheduler: object) -> None:
    """A checkpoint of MMEngine with a larger model than the job's."""
    Path("output/small").mkdir(parents=True)
    model = torch.nn.Linear(9, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1).state_dict()
    state = {"meta": {"iter": 1, "epoch": 0}, "state_dict": model.state_dict(), "optimizer": optimizer}
    torch.save({**state, "param_schedulers": scheduler, "message_hub": {}}, "output/small/iter_1.pth")
    job = a_job()
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume), plan
    t.require_takeover(job, plan)


def loaded(weights: object, *, strict: bool = False) -> None:
    torch.save(weights, "weights.pth")
    t.load_weights(torch.nn.Linear(3, 1), Path("weights.pth"), strict=strict, say=print)


def torn(read: Callable[[Path], object]) -> None:
    Path("torn.pth").write_bytes(b"PK\3\4 and no more")
    read(Path("torn.pth"))


def options(**given: Any) -> Namespace:
    parser = u.OptionParser()
    u.add_common_options(parser)
    found = parser.parse_args([])
    vars(found).update(given)
    return found


def with_explanation() -> None:
    with s.explained(DISK, NOWHERE, "it cannot be written"):
        raise OSError


ROOM = {**asdict(L), "checkpoint_folder": "../other"}
# How each error comes about that a docstring names: what is not listed here may not be named there, and vice versa.
RAISED: dict[tuple[str, type[BaseException]], Callable[[], object]] = {
    ("open_run", t.Exit): lambda: t.open_run("", console=QUIET),
    ("TrainingRun.track", UsageError): lambda: before_the_loop(lambda run: run.track(it=object())),
    ("TrainingRun.track", Incompatible): tracked_again,
    ("TrainingRun.batches", UsageError): lambda: looping(iter([])),
    ("TrainingRun.batches", UnreadableSample): lambda: looping(Failing()),
    ("TrainingRun.batches", t.Exit): lambda: looping(Failing(kills=True), workers=1),
    ("TrainingRun.epochs", UsageError): lambda: before_the_loop(lambda run: next(run.epochs(0))),
    ("TrainingRun.steps", UsageError): lambda: before_the_loop(lambda run: next(run.steps(-1))),
    ("TrainingRun.end_step", UsageError): lambda: before_the_loop(lambda run: run.end_step()),
    ("TrainingRun.log", UsageError): lambda: before_the_loop(lambda run: run.log(loss="low")),
    ("TrainingRun.finish", UsageError): lambda: before_the_loop(lambda run: run.finish()),
    ("TrainingRun.record_evaluation", UsageError): lambda: within(lambda run: run.record_evaluation(best="it", a=1)),
    ("TrainingRun.poll", t.Exit): lambda: within(asked_to_stop),
    ("TrainingRun.stop", t.Exit): lambda: within(lambda run: run.stop("a test")),
    ("TrainingRun.save", UsageError): lambda: before_the_loop(lambda run: run.save()),
    ("TrainingRun.evaluation_due", UsageError): lambda: within(lambda run: run.evaluation_due(every=0.5)),
    ("prove", UsageError): lambda: prove([]),
    ("Settings", UsageError): lambda: Settings(kills=0),
    ("read_checkpoint", UsageError): lambda: t.read_checkpoint(NOWHERE),
    ("read_checkpoint", DamagedFile): lambda: torn(t.read_checkpoint),
    ("one_pass", UsageError): lambda: read_all(iter([])),
    ("one_pass", UnreadableSample): lambda: read_all(Failing()),
    ("one_pass", WorkersKilled): lambda: read_all(Failing(kills=True), workers=1),
    ("World.lost", ProcessLost): lambda: t.World(0, 2).lost(RuntimeError("Connection reset by peer")),
    ("check_dataset", UsageError): lambda: t.check_dataset(iter([]), workers=0),
    ("named_checkpoint", UsageError): lambda: t.named_checkpoint(Path("best"), L, run=NOWHERE),
    ("named_checkpoint", DamagedFile): lambda: torn(lambda path: t.named_checkpoint(path, L, run=NOWHERE)),
    ("find_checkpoint", UsageError): lambda: t.find_checkpoint(NOWHERE, L),
    ("find_checkpoint", DamagedFile): lambda: torn(lambda path: t.find_checkpoint(path, L)),
    ("furthest_checkpoint", UsageError): lambda: t.furthest_checkpoint(NOWHERE, L),
    ("load_weights", UsageError): lambda: loaded({"step": 3}),
    ("load_weights", DamagedFile): lambda: torn(lambda path: t.load_weights(None, path, strict=False, say=print)),
    ("load_weights", Incompatible): lambda: loaded({"weight": torch.zeros(1, 3)}, strict=True),
    ("load_weights", Refused): lambda: loaded({"other": torch.zeros(1, 3)}),
    ("dataset_meta", UsageError): lambda: t.dataset_meta(NOWHERE),
    ("dataset_meta", DamagedFile): lambda: torn(t.dataset_meta),
    ("read_pickle", DamagedFile): lambda: u.read_pickle(b"\x80", where="it"),
    ("write_samples", UsageError): lambda: torn(
        lambda path: demo.write_samples(path.parent, SAMPLES, noun="tiles", write=lambda: ({}, {}))
    ),
    ("Layout.session", u.LeadsOut): lambda: L.session(Path("run"), "../other"),
    ("Layout.log", u.LeadsOut): lambda: L.log(Path("run"), "../other"),
    ("Layout.from_plain", u.LeadsOut): lambda: u.Layout.from_plain(ROOM),
    ("Layout.from_plain", BadField): lambda: u.Layout.from_plain({}),
    ("OptionParser.error", UsageError): lambda: u.OptionParser().error("it is wrong"),
    ("start_from", UsageError): lambda: u.start_from(options(strict=True), {}),
    ("session_limit", UsageError): lambda: u.session_limit(options(session=60.0, until_done=True), {}),
    ("device_name", ArgumentTypeError): lambda: u.device_name("gpu"),
    ("folder", ArgumentTypeError): lambda: u.folder(__file__),
    ("require_launcher", UsageError): lambda: u.require_launcher("slurm"),
    ("fit", t.Exit): lambda: launched(a_job()),
    ("run_job", t.Exit): lambda: t.run_job(a_job(), QUIET),
    ("launch", RunHeld): launched_twice,
    ("pick_device", UsageError): lambda: t.pick_device("cuda:99", deterministic=False),
    ("decide_by_shapes", UsageError): lambda: by_shapes({"step": 3}),
    ("decide_by_shapes", Incompatible): lambda: by_shapes({"weight": torch.zeros(1, 3)}),
    ("require_takeover", Incompatible): lambda: taken_over({"last_epoch": 1}),
    ("require_takeover", DamagedFile): lambda: taken_over([]),
    ("read_config", ConfigError): lambda: c.read_config(NOWHERE),
    ("read_config", UsageError): lambda: c.read_config(Path("https://example.org/a.py")),
    ("read_python_text", ConfigError): lambda: c.read_python_text("import os", Path("it")),
    ("set_values", ConfigError): lambda: c.set_values({"lr": 0.1}, ["lrr", "1"]),
    ("merge_options", ConfigError): lambda: c.merge_options({}, ["lr"]),
    ("validate", ConfigError): lambda: c.validate(Tight, {"wide": 4}),
    ("check_schema", ConfigError): lambda: c.check_schema(Tight),
    ("Effects.of", ConfigError): lambda: c.Effects().of("lr"),
    ("write_whole", OSError): lambda: s.write_whole(DISK, NOWHERE, b""),
    ("write_json", OSError): lambda: s.write_json(DISK, NOWHERE, {}),
    ("durable_write", OSError): lambda: s.durable_write(DISK, NOWHERE, lambda _file: None),
    ("durable_folder", OSError): lambda: s.durable_folder(DISK, Path(__file__) / "below"),
    ("Disk.create", OSError): lambda: DISK.create(NOWHERE),
    ("Disk.open_append", OSError): lambda: DISK.open_append(Path()),
    ("explained", Refused): with_explanation,
    ("open_ordinary", s.NotOrdinary): lambda: s.open_ordinary("."),
    ("open_ordinary", OSError): lambda: s.open_ordinary(NOWHERE),
    ("read_whole", s.NotOrdinary): lambda: s.read_whole(__file__, most_bytes=9),
    ("read_whole", OSError): lambda: s.read_whole(NOWHERE),
    ("read_json", OSError): lambda: s.read_json(NOWHERE),
    ("read_json", ValueError): lambda: s.read_json(__file__),
    ("require_local", UsageError): lambda: s.require_local("s3://bucket/it.pth"),
    ("place", u.LeadsOut): lambda: u.place(Path("run"), "/etc/passwd"),
    ("text_of", UnicodeDecodeError): lambda: u.text_of(b"\xff\x81"),
}


def test_how_each_error_comes_about_that_is_named_is_known() -> None:
    named = [(entry.name, error) for entry in ENTRIES for error in entry.docstring.raises]
    assert sorted(named) == sorted((name, kind.__name__) for name, kind in RAISED)


@pytest.mark.parametrize(("name", "kind"), RAISED, ids=lambda each: getattr(each, "__name__", each))
def test_each_error_that_is_named_is_raised(name: str, kind: type[BaseException], tmp_path: Path) -> None:
    with chdir(tmp_path), pytest.raises(kind):
        RAISED[name, kind]()
