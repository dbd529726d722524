"""The sonar guide, line by line: each of its commands as typed, and what it promises, or what we say better.

The guide is Focal-SST-Sonar's TRAINING_CHECKPOINT_GUIDE.md, 训练断点续训与实验管理指南. A row has its words, what is
run, the exit code, and what has to be said. The stories follow its order.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from unbroken.journal import read_events, read_steps

APP = Path(__file__).resolve().parents[1] / "apps" / "focal_sst"
RUNS = Path("output/sonar_models/focal_sst")
PATIENCE_S = 150.0
CFG = "--cfg_file cfgs/sonar_models/focal_sst.yaml"

Check = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One command of the guide: its words, what is run instead of them if anything, and what comes of it."""

    guide: str
    run: str = ""  # as typed in the guide, or its equal here where that is PowerShell
    code: int = 0
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    cut: tuple[str, int] | None = None  # a signal, sent once the checkpoint of this epoch is there
    edit: Mapping[str, Any] = field(default_factory=dict)  # keys of focal_sst.yaml, changed before
    undo: bool = False  # and changed back afterwards
    then: Check | None = None


def train(tag: str, epochs: int = 80) -> str:
    """The guide's short form."""
    return f"python train.py --extra_tag {tag} --epochs {epochs} --fp16"


def why(tag: str, options: str = "--epochs 80 --fp16") -> str:
    return f"unbroken why focalsst --extra_tag {tag} {options}"


# -- what is looked at after a command ---------------------------------------------------------------------------------


def names(tag: str, folder: str = "ckpt") -> set[str]:
    return {path.name for path in (RUNS / tag / folder).iterdir()}


def has(tag: str, *epochs: int, folder: str = "ckpt") -> Check:
    """These checkpoints are there, and the tree is the one that the guide shows."""

    def check(app: Path) -> None:
        assert {f"checkpoint_epoch_{epoch}.pth" for epoch in epochs} <= names(tag, folder)
        assert {"ckpt", "tensorboard"} <= names(tag, "") and list((RUNS / tag).glob("log_train_*.txt"))

    return check


def archived(tag: str, *files: str) -> Check:
    def check(app: Path) -> None:
        kept = {path.name for path in (RUNS / tag / "archive").rglob("*.pth")}
        assert set(files) <= kept, kept

    return check


def delete_checkpoints(tag: str) -> Check:
    def check(app: Path) -> None:
        for path in (RUNS / tag / "ckpt").iterdir():
            path.unlink()

    return check


def began_as(tag: str, *verdicts: str) -> Check:
    """How the sessions of a run began."""

    def check(app: Path) -> None:
        events = read_events(RUNS / tag / "unbroken/journal.jsonl")
        found = [str(event["plan"]["verdict"]).lower() for event in events if event["event"] == "session"]
        assert found == list(verdicts), found

    return check


def rates(tag: str) -> dict[int, float]:
    records = read_steps(RUNS / tag / "unbroken/metrics.jsonl")
    return {record["step"]: record["lr"] for record in records if "lr" in record}


def rate_goes_on_without_a_jump(app: Path) -> None:
    """80 -> 120 epochs: from the end of the old schedule up and down again, never 0, never a leap."""
    lr = rates("baseline")
    assert len(lr) == 120
    assert all(value > 0 for value in lr.values())
    peak = max(lr[step] for step in range(81, 121))
    assert lr[80] < 1e-5 < lr[81] < peak < max(lr.values())
    assert lr[120] < 1e-5


def same_curves_as_the_record(app: Path) -> None:
    """TensorBoard's own reader sees every experiment, each step of it once, and the numbers of the record."""
    found = EventMultiplexer().AddRunsFromDirectory(str(RUNS))
    found.Reload()
    tags = {"baseline", "grad_accum_x4"}
    evaluated = "baseline/eval/eval_with_train/tensorboard_val"
    assert set(found.Runs()) == {f"{tag}/tensorboard" for tag in tags} | {evaluated}
    for tag in tags:
        records = read_steps(RUNS / tag / "unbroken/metrics.jsonl")
        loss = {record["step"]: record["loss"] for record in records if "loss" in record}
        for curve in ("train/loss", "train/hm_loss_head_0", "train/loc_loss_head_0", "meta_data/learning_rate"):
            seen = found.Scalars(f"{tag}/tensorboard", curve)
            assert [event.step for event in seen] == sorted(loss), (tag, curve)
        for curve, expected in (("train/loss", loss), ("meta_data/learning_rate", rates(tag))):
            seen = found.Scalars(f"{tag}/tensorboard", curve)
            assert all(math.isclose(event.value, expected[event.step], rel_tol=1e-5) for event in seen)
    assert [event.step for event in found.Scalars(evaluated, "mAP")] == [80]  # by epoch, as in the original
    assert found.Scalars(evaluated, "Car_3d/easy_R40")


def shows_the_experiments(app: Path) -> None:
    """What `tensorboard --logdir=output/sonar_models/focal_sst/` reads; its server: twin/test_tensorboard.py."""
    found = EventMultiplexer().AddRunsFromDirectory(str(RUNS))
    found.Reload()
    assert set(found.Runs()) == {f"{path.name}/tensorboard" for path in RUNS.iterdir()}


# -- the table ---------------------------------------------------------------------------------------------------------

BASELINE = f"""python train.py \\
    {CFG} \\
    --batch_size 2 \\
    --workers 4 \\
    --epochs 80 \\
    --extra_tag baseline \\
    --fp16"""
MANUAL = BASELINE.replace(
    "    --fp16", f"    --ckpt {RUNS.as_posix()}/baseline/ckpt/checkpoint_epoch_10.pth \\\n    --fp16"
)
AS_BASELINE = f"{CFG} --batch_size 2 --workers 4 --epochs 80 --fp16"
LAYER = "MODEL.BACKBONE_3D.DSVT"
VOXELS = "DATA_CONFIG.DATA_PROCESSOR.2"
CONTINUES = ("plan: RESUME - continue output/sonar_models/focal_sst/baseline at step ", "(epoch 13 of ")
ANOTHER = "plan: REFUSE (exit 13, incompatible config)"


def key(guide: str, *says: str, code: int = 0, options: str = AS_BASELINE, **edit: Any) -> Row:
    """A key of the guide's two lists, changed in focal_sst.yaml while the run stands at epoch 12."""
    dotted = {name.replace("__", "."): value for name, value in edit.items()}
    expected = (*(CONTINUES if code == 0 else (ANOTHER,)), *says)
    return Row(guide=guide, run=why("baseline", options), code=code, says=expected, edit=dotted, undo=True)


FITS_NOT, ELSE = "so that the weights no longer fit", "so that the weights would mean something else"
KEYS = [
    # 可以安全修改（不影响继续训练）
    key(
        "BATCH_SIZE_PER_GPU（通过命令行--batch_size覆盖）",
        "BATCH_SIZE_PER_GPU: 2 -> 1 (schedule)",
        options=AS_BASELINE.replace("--batch_size 2", "--batch_size 1"),
    ),
    key(
        "NUM_EPOCHS（通过命令行--epochs覆盖）",
        "NUM_EPOCHS: 80 -> 120 (schedule)",
        "learning rate: 0.00151117 now -> 0.000927208 in the next step",
        options=AS_BASELINE.replace("--epochs 80", "--epochs 120"),
    ),
    key(
        "GRAD_ACCUMULATION_STEPS",
        "GRAD_ACCUMULATION_STEPS: 1 -> 4 (schedule)",
        OPTIMIZATION__GRAD_ACCUMULATION_STEPS=4,
    ),
    key(
        "学习率相关参数 LR",
        "LR: 0.004 -> 0.002 (schedule)",
        "learning rate: 0.00151117 now -> 0.000755585 in the next step",
        OPTIMIZATION__LR=0.002,
    ),
    # GUIDE≠CODE: adam_onecycle never reads it; here that is said
    key("学习率相关参数 WARMUP_EPOCH", "ignored: OPTIMIZATION.", "WARMUP_EPOCH", OPTIMIZATION__WARMUP_EPOCH=5),
    key(
        "学习率相关参数 GRAD_NORM_CLIP",
        "GRAD_NORM_CLIP: 10.0 -> 35.0 (schedule)",
        OPTIMIZATION__GRAD_NORM_CLIP=35,
    ),
    key("workers数量", options=AS_BASELINE.replace("--workers 4", "--workers 0")),
    key(
        "数据增强参数",
        "the data settings changed: bit-exactness starts anew at this step",
        "(data)",
        DATA_CONFIG__DATA_AUGMENTOR__AUG_CONFIG_LIST=[],
    ),
    # 修改后无法继续训练. GUIDE≠CODE: in the original only d_model and more blocks fail, the others load silently
    key(
        "d_model（特征维度）", "d_model: [16] -> [32] (shape)", FITS_NOT, "--extra_tag baseline_", "undo",
        code=13, **{f"{LAYER}.d_model": [32]},
    ),
    key("nhead（注意力头数）", "[2] -> [4] (meaning)", ELSE, "--extra_tag baseline_", code=13,
        **{f"{LAYER}.nhead": [4]}),
    key("set_info（DSVT集合大小）", "set_info.0.size: 8 -> 16 (meaning)", ELSE, "--extra_tag baseline_", code=13,
        **{f"{LAYER}.set_info": [[16, 1]]}),
    key("set_info, more blocks", "set_info.0.blocks: 1 -> 2 (shape)", FITS_NOT, code=13,
        **{f"{LAYER}.set_info": [[8, 2]]}),
    key("window_shape（窗口大小）", "[[8, 6, 6]] -> [[8, 6, 5]] (meaning)", "--extra_tag baseline_",
        code=13, **{f"{LAYER}.INPUT_LAYER.window_shape": [[8, 6, 5]]}),
    # GUIDE≠CODE: nothing reads it, so it is no reason to stop
    key("conv_out_channel（输出通道数）", f"{LAYER}.conv_out_channel", **{f"{LAYER}.conv_out_channel": 64}),
    key("VOXEL_SIZE（体素大小）", "VOXEL_SIZE: [0.75, 0.75, 0.75] -> [0.75, 0.75, 0.5] (meaning)", ELSE, code=13,
        **{f"{VOXELS}.VOXEL_SIZE": [0.75, 0.75, 0.5]}),
    key("MAX_NUMBER_OF_VOXELS（体素数量）", "MAX_NUMBER_OF_VOXELS.train: 2000 -> 1000 (meaning)", code=13,
        **{f"{VOXELS}.MAX_NUMBER_OF_VOXELS": {"train": 1000, "test": 1000}}),
    key("MAX_POINTS_PER_VOXEL（每个体素最大点数）", "64 -> 32 (meaning)", code=13,
        **{f"{VOXELS}.MAX_POINTS_PER_VOXEL": 32}),
    key("POINT_CLOUD_RANGE", "POINT_CLOUD_RANGE: [0.0,", "(meaning)", ELSE, code=13,
        **{"DATA_CONFIG.POINT_CLOUD_RANGE": [0, -8.25, -6, 24.75, 8.25, 3]}),
]  # fmt: skip

CASES = [
    Row(
        guide="情况1 第一次训练（基线）; killed in the middle",
        run=BASELINE,
        code=-signal.SIGKILL,
        cut=("SIGKILL", 12),
        says=("plan: FRESH - train output/sonar_models/focal_sst/baseline from step 1 of 80",),
    ),
    *KEYS,
    Row(
        guide="情况2 自动继续: 重新运行相同的命令，会自动加载最新checkpoint",
        run=BASELINE,
        code=75,
        cut=("SIGTERM", 20),
        says=(*CONTINUES, "load checkpoint from", "checkpoint_epoch_12.pth", "resumed epoch: 12, iter: 12", "SIGTERM"),
        then=began_as("baseline", "fresh", "resume"),
    ),
    Row(
        guide="情况2 手动指定checkpoint; 场景3 训练在epoch 30时中断",
        run=MANUAL,
        code=-signal.SIGKILL,
        cut=("SIGKILL", 30),
        says=(
            "at step 11 of 80",
            "--ckpt names output/sonar_models/focal_sst/baseline/ckpt/checkpoint_epoch_10.pth (step 10)",
            "superseded and kept in archive/, nothing is deleted",
            "resumed epoch: 10, iter: 10",
        ),
        then=archived("baseline", "checkpoint_epoch_11.pth", "checkpoint_epoch_20.pth"),
    ),
    Row(
        guide="场景3 恢复训练（使用完全相同的命令）: 会自动从checkpoint_epoch_30.pth继续",
        run=train("baseline"),
        says=("plan: RESUME", "load checkpoint from", "resumed epoch: 3", "finished: 80 steps"),
        then=began_as("baseline", "fresh", "resume", "resume", "resume"),
    ),
    Row(guide="output: baseline/ckpt, tensorboard, log_train_*.txt", then=has("baseline", 51, 79, 80)),
    Row(
        guide="情况1 修改focal_sst.yaml后的第二次训练",
        run=BASELINE.replace("baseline", "grad_accum_x4"),
        edit={"OPTIMIZATION.GRAD_ACCUMULATION_STEPS": 4},
        undo=True,
        code=75,
        cut=("SIGTERM", 3),
        says=("plan: FRESH - train output/sonar_models/focal_sst/grad_accum_x4 from step 1 of 80",),
        then=has("grad_accum_x4", 1, 2, 3),
    ),
    Row(
        guide="rerun of what is complete (the original waits for ever here)",
        run=BASELINE,
        says=("plan: FINISHED", "is complete, nothing to do"),
    ),
    Row(
        guide="实用建议4 tensorboard --logdir=output/sonar_models/focal_sst/ --port=6006",
        then=same_curves_as_the_record,
    ),
    Row(
        guide="情况4 基于已有模型fine-tune",
        run=f"""python train.py \\
    {CFG} \\
    --pretrained_model output/sonar_models/focal_sst/baseline/ckpt/checkpoint_epoch_80.pth \\
    --extra_tag finetune_exp \\
    --epochs 100 \\
    --fp16""",
        code=75,
        cut=("SIGTERM", 2),
        says=(
            "plan: FINE-TUNE - train output/sonar_models/focal_sst/finetune_exp from step 1 of 100",
            "weights are taken from output/sonar_models/focal_sst/baseline/ckpt/checkpoint_epoch_80.pth",
            "optimizer, step and schedule are new",
        ),
        then=has("finetune_exp", 1, 2),
    ),
    Row(
        guide="情况4, again: the flag is for the first launch only (the original loads both)",
        run=why("finetune_exp", f"--pretrained_model {RUNS}/baseline/ckpt/checkpoint_epoch_80.pth --epochs 100 --fp16"),
        says=("plan: RESUME", "was for the first launch only: this run has its own history"),
    ),
    Row(
        guide="情况4 from the best weights",
        run=why("finetune_best", f"--pretrained_model {RUNS}/baseline/ckpt/best_mAP_epoch_80.pth --epochs 100"),
        says=("plan: FINE-TUNE",),
    ),
    *(
        Row(
            guide=f"实用建议1 --extra_tag {tag}",
            run=why(tag),
            says=(f"plan: FRESH - train output/sonar_models/focal_sst/{tag} from step 1",),
        )
        for tag in (
            "default",
            "test1",
            "new",
            "baseline_bs2",
            "grad_accum_x4_lr0.0005",
            "small_model_d96",
            "voxel_0.15_workers8",
            "exp1_baseline_20260205",
        )
    ),
    Row(
        guide="实用建议2 experiments_log.txt: 日期 | 标签 | 配置说明 | 结果",
        run="unbroken ls output",
        says=("tag", "last seen", "best", "baseline", "finished", "80/80", "grad_accum_x4", "stopped", "mAP"),
    ),
    Row(
        guide="实用建议3 Get-ChildItem output/sonar_models/focal_sst/baseline/ckpt/",
        run="ls output/sonar_models/focal_sst/baseline/ckpt/",
        says=("best_mAP_epoch_80.pth", "checkpoint_epoch_51.pth", "checkpoint_epoch_80.pth"),
        never=("checkpoint_epoch_50.pth", "partial"),
    ),
    Row(
        guide="实用建议3 Get-ChildItem ...*.pth | Sort-Object LastWriteTime -Descending | Select-Object -First 5",
        run="ls -t output/sonar_models/focal_sst/baseline/ckpt/checkpoint_*.pth | head -5",
        says=("checkpoint_epoch_80.pth", "checkpoint_epoch_76.pth"),
    ),
    Row(
        guide="实用建议3, by the step recorded in the files and not by their times",
        run="unbroken show output/sonar_models/focal_sst/baseline",
        says=("checkpoint_epoch_80.pth  80", "good", "fresh", "resume", "killed", "stopped by SIGTERM", "mAP_lenient"),
    ),
    Row(
        guide="实用建议5 Copy-Item checkpoint_epoch_80.pth best_model_backup.pth",
        run="cp output/sonar_models/focal_sst/baseline/ckpt/checkpoint_epoch_80.pth \\\n"
        "   output/sonar_models/focal_sst/baseline/ckpt/best_model_backup.pth",
    ),
    Row(guide="... the copy changes nothing (the original resumes from it)", run=why("baseline", AS_BASELINE),
        says=("plan: FINISHED", "checkpoint_epoch_80.pth holds its final state")),
    Row(guide="... and is whole", run="unbroken verify output/sonar_models/focal_sst/baseline",
        says=("best_model_backup.pth", "are whole")),
    Row(
        guide="实用建议5 Copy-Item -Recurse baseline baseline_backup_20260205",
        run="cp -r output/sonar_models/focal_sst/baseline \\\n"
        "   output/sonar_models/focal_sst/baseline_backup_20260205",
    ),
    Row(guide="... it is a run of its own place", run=why("baseline_backup_20260205", AS_BASELINE),
        says=("plan: FINISHED", "baseline_backup_20260205 is complete")),
    Row(guide="... and is whole", run="unbroken verify output/sonar_models/focal_sst/baseline_backup_20260205",
        says=("are whole",)),
    Row(guide="场景4 原始训练了80个epoch", run=train("baseline"), says=("plan: FINISHED",)),
    Row(
        guide="场景4, looked at before",
        run=why("baseline", "--epochs 120 --fp16"),
        says=("NUM_EPOCHS: 80 -> 120 (schedule)", "by rewarm", "--on-extend stretch", "--on-extend hold", "at the end"),
    ),
    Row(
        guide="场景4 继续训练到120个epoch: 会从epoch 80继续训练到120",
        run=train("baseline", 120),
        says=("at step 81 of 120", "resumed epoch: 80, iter: 80", "by rewarm", "finished: 120 steps"),
        then=rate_goes_on_without_a_jump,
    ),
    Row(guide="最佳实践 定期清理: the last 30 stay by themselves", then=has("baseline", 91, 120)),
]  # fmt: skip

ANEW = [
    Row(guide="(a baseline to delete)", run=train("baseline"), code=75, cut=("SIGTERM", 2)),
    Row(
        guide="情况3 方法1 Remove-Item output/sonar_models/focal_sst/baseline/ckpt/* -Recurse",
        then=delete_checkpoints("baseline"),
    ),
    Row(
        guide="... and the same command: not silently from zero, as it could be an accident",
        run=train("baseline"),
        code=12,
        says=("plan: REFUSE (exit 12", "that the journal lists are not here any more", "way out: start over:"),
    ),
    Row(
        guide="... what it stands for here, without deleting",
        run=f"{train('baseline')} --fresh",
        code=75,
        cut=("SIGTERM", 2),
        says=("plan: FRESH", "--fresh: what is here moves into archive/, nothing is deleted"),
        then=began_as("baseline", "fresh"),
    ),
    Row(guide="--fresh keeps its history", then=lambda app: _has_one_archive("baseline")),
    Row(
        guide="情况3 方法2 python train.py --extra_tag baseline_v2",
        run="python train.py \\\n    --extra_tag baseline_v2",
        says=("plan: FRESH", "finished: 2 steps, output/sonar_models/focal_sst/baseline_v2"),  # the config's NUM_EPOCHS
        then=has("baseline_v2", 1, 2),
    ),
    Row(
        guide="故障排查3 方法1 Remove-Item output/sonar_models/focal_sst/YOUR_TAG/ckpt/*.pth",
        run="rm output/sonar_models/focal_sst/baseline_v2/ckpt/*.pth",
    ),
    Row(guide="... answers as above", run=why("baseline_v2"), code=12, says=("way out: start over", "--fresh")),
    Row(
        guide="故障排查3 方法2 python train.py --extra_tag YOUR_TAG_v2 --epochs 80 --fp16",
        run=train("YOUR_TAG_v2"),
        code=75,
        cut=("SIGTERM", 1),
        says=("plan: FRESH - train output/sonar_models/focal_sst/YOUR_TAG_v2 from step 1 of 80",),
    ),
]
TROUBLE = [
    Row(guide="(a baseline)", run=train("baseline"), code=75, cut=("SIGTERM", 2)),
    Row(
        guide="故障排查1 Test-Path output/sonar_models/focal_sst/YOUR_TAG/ckpt/",
        run="test -e output/sonar_models/focal_sst/baseline/ckpt/",
    ),
    Row(
        guide="故障排查1 Get-ChildItem output/sonar_models/focal_sst/YOUR_TAG/ckpt/*.pth",
        run="ls output/sonar_models/focal_sst/baseline/ckpt/*.pth",
        says=("checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"),
    ),
    Row(
        guide="故障排查1 确认extra_tag是否正确: a tag that is mistyped is noticed",
        run=why("basline"),
        says=("plan: FRESH", "note: tag `baseline` has this config"),
    ),
    Row(
        guide="故障排查1 路径不正确: however the config is typed, it is the same run",
        run=why("baseline", r"--cfg_file '.\cfgs\sonar_models\focal_sst.yaml' --epochs 80 --fp16"),
        says=("plan: RESUME - continue output/sonar_models/focal_sst/baseline",),
    ),
    Row(
        guide="故障排查1 checkpoint路径: one that is not there",
        run=why("baseline", f"--epochs 80 --fp16 --ckpt {RUNS}/baseline/ckpt/checkpoint_epoch_99.pth"),
        code=2,
        says=("there is no such file", "checkpoint_epoch_2.pth"),
    ),
    Row(
        guide="故障排查2 RuntimeError: Error(s) in loading state_dict... size mismatch",
        run=train("baseline"),
        code=13,
        edit={f"{LAYER}.d_model": [32]},
        says=(ANOTHER, FITS_NOT, "way out: keep both as experiments of their own: --extra_tag baseline_"),
        never=("Traceback",),
    ),
    Row(
        guide="故障排查2 解决: 使用新的--extra_tag从头训练",
        run=train("baseline_d32"),
        code=75,
        cut=("SIGTERM", 1),
        undo=True,
        says=("plan: FRESH",),
    ),
    Row(guide="... and the change is undone", edit={f"{LAYER}.d_model": [16]}, run=why("baseline"),
        says=("plan: RESUME",)),
]  # fmt: skip


def _has_one_archive(tag: str) -> None:
    assert len(list((RUNS / tag / "archive").iterdir())) == 1


def new(guide: str, tag: str, **edit: Any) -> Row:
    """An experiment of its own: only its beginning is trained."""
    return Row(
        guide=guide,
        run=train(tag),
        code=75,
        cut=("SIGTERM", 1),
        edit={name.replace("__", "."): value for name, value in edit.items()},
        undo=True,
        says=(f"plan: FRESH - train output/sonar_models/focal_sst/{tag} from step 1 of 80",),
        then=has(tag, 1),
    )


TUNING = [
    new("场景1 基线实验", "baseline"),
    new("场景1 实验1：尝试更大的学习率; LR: 0.002", "exp1_lr0.002", OPTIMIZATION__LR=0.002),
    new(
        "场景1 实验2：尝试梯度累积; GRAD_ACCUMULATION_STEPS: 4",
        "exp2_accum_x4",
        OPTIMIZATION__GRAD_ACCUMULATION_STEPS=4,
    ),
    Row(
        guide="场景1 基线仍然保留在 baseline/ 目录下",
        run=why("baseline"),
        says=("plan: RESUME", " of 80 (epoch "),
    ),
    Row(
        guide="避免的错误: 修改配置后不换tag",
        run=why("exp1_lr0.002"),
        says=("plan: RESUME", "LR: 0.002 -> 0.004 (schedule)", "in the next step"),
    ),
]
ABLATION = [
    new("场景2 完整模型", "full_model"),
    new(
        "场景2 去掉Focal机制（需要修改模型配置）",
        "ablation_no_focal",
        MODEL__BACKBONE_3D__FOCAL_ENCODER__FOCAL_THRESHOLD=1.1,
        MODEL__BACKBONE_3D__FOCAL_ENCODER__LOSS_CONFIG__LOSS_WEIGHT=0.0,
    ),
    new(
        "场景2 使用更小的模型",
        "ablation_small_d96",
        MODEL__BACKBONE_3D__DSVT__d_model=[96],
        MODEL__BACKBONE_3D__DSVT__nhead=[6],
    ),
    Row(
        guide="场景2, the tag without its config",
        run=why("ablation_no_focal"),
        code=13,
        says=(ANOTHER, "FOCAL_THRESHOLD: 1.1 -> 0.5 (meaning)"),
    ),
]
WORKFLOW = [
    new("推荐工作流 1. 基线实验", "baseline_20260205"),
    new("推荐工作流 2. 改进实验1: 修改配置 → 使用新tag", "improved_v1_20260206", OPTIMIZATION__WEIGHT_DECAY=0.05),
    new("推荐工作流 3. 改进实验2: 再次修改 → 再用新tag", "improved_v2_20260207", OPTIMIZATION__PCT_START=0.3),
    Row(guide="推荐工作流 4. 对比结果 tensorboard --logdir=output/sonar_models/focal_sst/", then=shows_the_experiments),
    Row(
        guide="... and as a table",
        run="unbroken ls output/sonar_models/focal_sst/",
        says=("baseline_20260205", "improved_v1_20260206", "improved_v2_20260207", "stopped"),
    ),
]
STORIES = {
    "cases": CASES,
    "anew": ANEW,
    "trouble": TROUBLE,
    "tuning": TUNING,
    "ablation": ABLATION,
    "workflow": WORKFLOW,
}
