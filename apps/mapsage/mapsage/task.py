"""What MapSage gives to the training loop: network, optimizer, loss of a batch, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from mapsage.config import MapSageConfig
from mapsage.config.data import SegDataset
from mapsage.config.model import CrossEntropyLoss, DiceLoss
from mapsage.dataset.pipeline import Sample
from mapsage.dataset.preprocess import Preprocessor, collate, split
from mapsage.datasets import build_dataset
from mapsage.evaluation import evaluate, predict
from mapsage.loss import LossTerm, decode_losses, total_loss
from mapsage.mmengine_states import beside_optimizer, spell_as_here
from mapsage.model import EncoderDecoder, MixVisionTransformer, SegformerHead, segmentor_name
from mapsage.optimizer import build_adamw
from mapsage.picture import draw_samples
from mapsage.schedule import IterationSchedule, phases_of
from unbroken import Extension, Job
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
    Task,
    Validation,
    pick_device,
)

Say = Callable[[str], None]


def build(job: Job, say: Say) -> Task:
    """Build everything a job needs; whether its data can work was asked before, see `preflight`."""
    config: MapSageConfig = job.options.own
    device = pick_device(job.options.device, deterministic=config.randomness.deterministic)
    skip_bad = job.options.accidents.on_bad == "skip"
    dataset = build_dataset(config.train_dataloader.datasets, gaps=skip_bad)
    preprocess = build_preprocessor(config).to(device)
    model = build_segmentor(config).to(device)
    wrapper, head = config.optim_wrapper, config.model.decode_head
    optimizer = build_adamw(
        model,
        lr=wrapper.optimizer.lr,
        weight_decay=wrapper.optimizer.weight_decay,
        betas=wrapper.optimizer.betas,
        eps=wrapper.optimizer.eps,
        paramwise=wrapper.paramwise_cfg.rules if wrapper.paramwise_cfg else None,
    )
    schedule = IterationSchedule(optimizer, phases_of(config))
    amp = wrapper.type == "AmpOptimWrapper"
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    scaler = None
    if amp:
        # float16 on a GPU, bfloat16 on a CPU, unless the config says which.
        name = wrapper.dtype or ("float16" if device.type == "cuda" else "bfloat16")
        autocast = partial(torch.autocast, device.type, dtype=getattr(torch, name))
        fixed = wrapper.loss_scale != "dynamic"
        scale: dict[str, Any] = {"init_scale": float(wrapper.loss_scale), "static": True} if fixed else {}
        scaler = ConfiguredScaler(device.type, **scale)
    loader, workers = config.train_dataloader, job.options.workers
    order: Literal["stream", "epoch"] = "stream" if loader.sampler.type == "InfiniteSampler" else "epoch"
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(dataset)} training tiles, on {device}")
    return Task(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        dataset=dataset,
        batch_size=loader.batch_size,
        workers=loader.num_workers if workers is None else workers,
        loss=partial(_loss, model, preprocess, _loss_terms(config), align_corners=head.align_corners),
        steps=config.train_cfg.max_iters,
        accumulate=wrapper.accumulative_counts,
        batches=BatchSettings(
            shuffle=order if loader.sampler.shuffle else "none",
            collate=collate,
            split=split,
            count=len,
            names=lambda samples: [sample.name for sample in samples],
        ),
        gradients=GradientSettings(
            clip_norm=wrapper.clip_grad.max_norm if wrapper.clip_grad else None,
            clip_norm_type=wrapper.clip_grad.norm_type if wrapper.clip_grad else 2.0,
            scaler=scaler,
            autocast=autocast,
            recompute=None if config.uses_gradient_checkpointing else model.backbone.recompute,
        ),
        validation=_validation(config, model, preprocess, say, job),
        exchange=Exchange(
            rename_weights=segmentor_name,
            class_rows=class_rows(config),
            translate=partial(spell_as_here, amp=amp),
            extra=partial(_extra, job, partial(beside_optimizer, schedule, optimizer, scaler)),
        ),
        follow_config=partial(_follow_config, optimizer, schedule, GroupSettings(optimizer)),
    )


def blueprint(job: Job) -> Blueprint:
    """The network of a job's config, for comparing shapes."""
    config: MapSageConfig = job.options.own
    return Blueprint(model=build_segmentor(config), rename=segmentor_name, class_rows=class_rows(config))


def class_rows(config: MapSageConfig) -> ClassRows:
    """The rows of the classifier, by class; our own files and MMEngine's name their classes in their `meta`."""
    tensors = frozenset({"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"})
    return ClassRows(names=config.class_names, tensors=tensors)


def build_segmentor(config: MapSageConfig) -> EncoderDecoder:
    """The network of a config, on torch's current default device."""
    body, head = config.model.backbone, config.model.decode_head
    # The network has the config's own words, but for those that decide nothing about its parameters.
    shape = body.model_dump(exclude={"type", "init_cfg", "with_cp", "pretrained"})
    backbone = MixVisionTransformer(**shape, with_cp=config.uses_gradient_checkpointing)
    decode_head = SegformerHead(
        **head.model_dump(exclude={"type", "norm_cfg", "ignore_index", "loss_decode"}),
        norm_requires_grad=head.norm_cfg.requires_grad if head.norm_cfg else None,
    )
    return EncoderDecoder(backbone, decode_head)


def build_preprocessor(config: MapSageConfig) -> Preprocessor:
    """Normalisation and padding of a config."""
    given = config.model.data_preprocessor
    return Preprocessor(size=config.train_size_px, mean=given.mean, std=given.std, bgr_to_rgb=given.bgr_to_rgb)


def _loss_terms(config: MapSageConfig) -> tuple[LossTerm, ...]:
    def term(loss: Any) -> LossTerm:
        match loss:
            case CrossEntropyLoss():
                options = {"avg_non_ignore": loss.avg_non_ignore, "class_weight": loss.class_weight}
                return LossTerm(kind="ce", weight=loss.loss_weight, options=options)
            case DiceLoss():
                dice = {"use_sigmoid": loss.use_sigmoid, "naive": loss.naive_dice, "eps": loss.eps}
                return LossTerm(kind="dice", weight=loss.loss_weight, options=dice)
        return LossTerm(kind="lovasz", weight=loss.loss_weight)

    return tuple(term(loss) for loss in config.model.decode_head.loss_decode)


def _loss(
    model: EncoderDecoder,
    preprocess: Preprocessor,
    terms: tuple[LossTerm, ...],
    samples: list[Sample],
    *,
    align_corners: bool,
) -> Mapping[str, Tensor]:
    image_NCHW, label_NHW = preprocess(samples, training=True)
    if label_NHW is None:
        raise ValueError("a sample to train on has a label")
    losses = decode_losses(model(image_NCHW), label_NHW, terms, align_corners=align_corners)
    return {"loss": total_loss(losses), **losses}


def _validation(
    config: MapSageConfig, model: EncoderDecoder, preprocess: Preprocessor, say: Say, job: Job
) -> Validation | None:
    """What is evaluated on the validation tiles, and drawn of them."""
    loader = config.val_dataloader
    if loader is None:
        return None
    skip_bad, pictures = job.options.accidents.on_bad == "skip", job.options.pictures
    dataset = build_dataset(loader.datasets, gaps=skip_bad)
    judge = partial(evaluate, config, dataset, model, preprocess, say, skip_bad=skip_bad)
    guess = partial(predict, config, model, preprocess)
    return Validation(
        evaluate=lambda _, poll: judge(workers=loader.num_workers, poll=poll).means,
        every=Every(steps=config.train_cfg.val_interval),
        from_step=config.train_cfg.val_begin,
        best=config.default_hooks.checkpoint.save_best,
        pictures=partial(draw_samples, model, dataset, guess, pictures) if pictures else None,
    )


def _follow_config(
    optimizer: torch.optim.Optimizer,
    schedule: IterationSchedule,
    settings: GroupSettings,
    step: int,
    extension: Extension | None,
) -> str | None:
    """After a resume the config's word counts for optimizer and schedule; says so when that changes something."""
    before = optimizer.param_groups[0]["lr"]
    changed = settings.put_back()
    said = [f"the optimizer is the config's from step {step + 1} on: {', '.join(changed)}"] if changed else []
    extends = schedule.extension != extension
    if extends or not schedule.follows_config or schedule.taken != step:  # a file may have no schedule at all
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule.rebuild_at(step, extension)
        lr = f"learning rate {before:.6g} -> {optimizer.param_groups[0]['lr']:.6g}"
        if extends and extension:
            said.append(f"the schedule is extended by {extension.policy} from step {step + 1} on: {lr}")
        elif extends or rates != [group["lr"] for group in optimizer.param_groups]:
            words = f"the checkpoint's schedule is not the config's, which is followed from step {step + 1} on: {lr}"
            said.append(words)
    return "; ".join(said) or None


def _extra(job: Job, beside: Callable[[], Mapping[str, Any]], progress: Progress) -> Mapping[str, Any]:
    """The entries by which MMEngine's own tools read our files."""
    best = {"best_score": progress.best.value} if progress.best else {}
    info = {"epoch": 0, "iter": max(progress.step - 1, 0), **best}
    config: MapSageConfig = job.options.own
    dataset: SegDataset = config.train_dataloader.datasets[0]
    dataset_meta = {
        "classes": tuple(dataset.class_names),
        "palette": [list(colour) for colour in dataset.palette or ()],
        "label_map": None,
        "reduce_zero_label": dataset.zero_is_no_data,
    }
    return {
        "optimizer": beside(),
        "meta": {
            "epoch": 0,
            "iter": progress.step,
            "seed": job.seed,
            "experiment_name": job.tag,
            "cfg": job.texts["vis_data/config.py"],
            "dataset_meta": dataset_meta,
        },
        "message_hub": {
            "log_scalars": {},
            "runtime_info": info,
            "resumed_keys": dict.fromkeys(info, True),  # what it keeps in the files that it saves from here on
        },
    }
