"""What the sonar detector gives to the training loop: network, optimizer, loss of a batch, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from focalsst.config import SonarConfig, detector_settings
from focalsst.dataset.folder import Batch, SonarFolder, collate
from focalsst.datasets import build_dataset
from focalsst.evaluation import draw_samples, evaluate_split
from focalsst.model.detector import Detector, build_detector
from focalsst.optimizer import AdamDecayingAll, build_adam
from focalsst.original_states import present_name, regrouping_of, spell_as_here, tables_of
from focalsst.recipes import SonarOptions, cycle_of, steps_of
from focalsst.schedule import OneCycleSchedule
from unbroken import Extension, Job, __version__
from unbroken.train import (
    BatchSettings,
    Blueprint,
    ClassRows,
    ConfiguredScaler,
    Every,
    Exchange,
    GradientSettings,
    GroupSettings,
    Progress,
    StepReport,
    Task,
    Validation,
    clock_time,
    pick_device,
    this_world,
)

Say = Callable[[str], None]
# TensorBoard's names, as the original's curves have them.
CURVES: Mapping[str, Sequence[str]] = {
    "loss": ("train/loss",),
    "loss_rpn": ("train/loss_rpn", "train/rpn_loss"),
    "loss_hm": ("train/hm_loss_head_0",),
    "loss_loc": ("train/loc_loss_head_0",),
    "loss_importance": ("train/importance_loss",),
    "loss_height": ("train/height_loss",),
    "lr": ("meta_data/learning_rate",),
    "grad_norm": ("meta_data/grad_norm",),
}


def build(job: Job, say: Say) -> Task:
    """Build everything a job needs; whether its data can work was asked before, see `preflight`."""
    own: SonarOptions = job.options.own
    config, rates = own.config, own.config.OPTIMIZATION
    device = pick_device(job.options.device, deterministic=own.deterministic)
    skip_bad = job.options.accidents.on_bad == "skip"
    dataset, validation = (
        build_dataset(config, own.data_root, training=training, skip_bad=skip_bad) for training in (True, False)
    )
    model = build_detector(detector_settings(config)).to(device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (rates.FREEZE_IN_PROJ and "in_proj" in name))
    optimizer = build_adam(model, lr=rates.LR, weight_decay=rates.WEIGHT_DECAY, betas=(rates.MOMS[0], 0.99))
    optimizer.regrouping = regrouping_of(model, optimizer)
    schedule = OneCycleSchedule(optimizer, cycle_of(config, steps_of(config, len(dataset), epochs=rates.NUM_EPOCHS)))
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    scaler = None
    if rates.FP16:  # float16 on a GPU needs its gradients scaled; bfloat16 on a CPU does not
        on_gpu = device.type == "cuda"
        autocast = partial(torch.autocast, device.type, dtype=torch.float16 if on_gpu else torch.bfloat16)
        scaler = ConfiguredScaler(device.type, init_scale=rates.LOSS_SCALE_FP16) if on_gpu else None
    overlap, pictures = config.MODEL.DENSE_HEAD.POST_PROCESSING.NMS_CONFIG.NMS_THRESH, job.options.pictures
    each_from = max(rates.NUM_EPOCHS - own.num_epochs_to_eval, 1) if own.num_epochs_to_eval else None
    parameters = sum(p.numel() for p in model.parameters())
    say(f"Total number of parameters: {parameters:,}; {len(dataset)} training and {len(validation)} validation frames")
    return Task(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        dataset=dataset,
        batch_size=rates.BATCH_SIZE_PER_GPU,
        workers=job.options.workers or 0,
        loss=partial(_loss, model, device),
        epochs=rates.NUM_EPOCHS,
        accumulate=rates.GRAD_ACCUMULATION_STEPS,
        batches=BatchSettings(collate=collate, split=Batch.split, count=len, names=lambda batch: batch.names),
        gradients=GradientSettings(clip_norm=rates.GRAD_NORM_CLIP, scaler=scaler, autocast=autocast),
        validation=Validation(
            evaluate=partial(_evaluate, job, config, model, validation, device, say),
            every=Every(epochs=rates.EVAL_INTERVAL or None, each_from=each_from),
            best="mAP",
            pictures=partial(draw_samples, model, validation, device, overlap, pictures) if pictures else None,
        ),
        exchange=Exchange(
            rename_weights=present_name,
            class_rows=class_rows(config, model),
            translate=partial(spell_as_here, model, optimizer),
            extra=partial(_extra, model),
        ),
        follow_config=partial(_follow_config, optimizer, schedule, GroupSettings(optimizer, moved=("betas",))),
        step_line=partial(_step_line, config, steps_of(config, len(dataset), epochs=1)),
        curves=lambda values: {tag: value for name, value in values.items() for tag in CURVES.get(name, (name,))},
    )


def blueprint(job: Job) -> Blueprint:
    """The detector of a job's config, for comparing shapes."""
    own: SonarOptions = job.options.own
    config = own.config
    model = build_detector(detector_settings(config))
    return Blueprint(model=model, rename=present_name, class_rows=class_rows(config, model))


def class_rows(config: SonarConfig, model: Detector) -> ClassRows:
    """The rows of the heat map's last convolution, by class; our own files name their classes in their config."""
    head, settings = "dense_head.heads_list.0.hm", model.settings.head
    tensors = frozenset(f"{head}.{settings.branch_convs - 1}.{name}" for name in ("weight", "bias"))

    def recorded(written: Mapping[str, Any]) -> Sequence[str]:
        # Each class stands there as its name, or as a section with its name.
        found = written.get("CLASS_NAMES") or ()
        names = [item.get("name") if isinstance(item, Mapping) else item for item in found]
        return [name for name in names if isinstance(name, str)]

    return ClassRows(names=config.class_names, tensors=tensors, recorded=recorded)


def _loss(model: Detector, device: torch.device, batch: Batch) -> Mapping[str, Tensor]:
    batch = batch.to(device)
    losses = model.losses(model(batch.points, batch.owner, len(batch)), batch.boxes)
    return {
        "loss": losses.total,
        "loss_rpn": losses.heatmap + losses.location,
        "loss_hm": losses.heatmap,
        "loss_loc": losses.location,
        "loss_importance": losses.importance,
        "loss_height": losses.height,
    }


def _evaluate(
    job: Job,
    config: SonarConfig,
    model: Detector,
    dataset: SonarFolder,
    device: torch.device,
    say: Say,
    progress: Progress,
    poll: Callable[[], None],
) -> Mapping[str, float]:
    """Average precision on the test part, written below `eval/` under the epoch."""
    say(f"evaluation of epoch {progress.epoch}")
    found = evaluate_split(
        model,
        dataset,
        config,
        device=device,
        workers=job.options.workers or 0,
        say=say,
        skip_bad=job.options.accidents.on_bad == "skip",
        poll=poll,
    )
    folder = job.directory / "eval/eval_with_train" / f"epoch_{progress.epoch}" / config.DATA_CONFIG.DATA_SPLIT.test
    settings = {"epoch": progress.epoch, "step": progress.step, "split": config.DATA_CONFIG.DATA_SPLIT.test}
    if this_world().leads:
        found.write(folder, settings=settings, save_to_file=job.options.own.save_to_file)
    return found.numbers


def _follow_config(
    optimizer: AdamDecayingAll,
    schedule: OneCycleSchedule,
    settings: GroupSettings,
    step: int,
    extension: Extension | None,
) -> str | None:
    """After a resume the config's word counts for optimizer and schedule; says so when that changes something."""
    before = optimizer.param_groups[0]["lr"]
    changed = settings.put_back()
    said = f"the optimizer is the config's from here on: {', '.join(changed)}" if changed else ""
    new_to_it = schedule.taken == 0 and step > 0  # a file of another program has no schedule
    if schedule.follows_config and schedule.extension == extension and not new_to_it:
        return said or None
    schedule.rebuild_at(step, extension)
    after = optimizer.param_groups[0]["lr"]
    extended = f", extended by {extension.policy}" if extension else ""
    words = (
        f"the schedule is the config's from here on{extended}, at step {schedule.taken} of {schedule.cycle.horizon}: "
        f"learning rate {before:.6g} -> {after:.6g}"
    )
    return f"{said}; {words}" if said else words


def _step_line(config: SonarConfig, per_epoch: int, report: StepReport) -> str:
    """The line of OpenPCDet's log; the epoch counts from 0 there, and so it does here."""
    v, epochs = report.values, config.OPTIMIZATION.NUM_EPOCHS
    left = (report.total or report.step) - report.step - (epochs - 1 - report.epoch) * per_epoch
    within = per_epoch - left  # an epoch whose first steps had another size ends with its last one too
    left_s = report.eta_s if report.eta_s is not None else 0.0
    words = [
        f"epoch: {report.epoch}/{epochs}, acc_iter={report.step}, cur_iter={within}/{per_epoch}",
        f"batch_size={config.OPTIMIZATION.BATCH_SIZE_PER_GPU}",
        f"time_cost(epoch): {clock_time(within * report.step_s)}/{clock_time((per_epoch - within) * report.step_s)}",
        f"time_cost(all): {clock_time(report.elapsed_s)}/{clock_time(left_s)}",
        *(f"{name}={v[name]:.4f}" for name in ("loss_hm", "loss_loc", "loss_importance", "loss")),
        f"d_time={report.data_s:.2f}, b_time={report.step_s:.2f}",
        f"norm={v.get('grad_norm', 0.0):.3f}, lr={v['lr']:.6g}",
    ]
    return ", ".join(words)


def _extra(model: Detector, progress: Progress) -> Mapping[str, Any]:
    """The entries by which the original's tools know how far the weights are, and what it has beside the weights."""
    return {
        "epoch": progress.epoch,
        "it": progress.step,
        "version": f"unbroken+{__version__}",
        "model_state": tables_of(model, progress.step),
    }
