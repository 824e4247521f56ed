"""The settings of each training, out of the flags and checked."""

from __future__ import annotations

from tas_tf.errors import UserError
from tas_tf.qat.finetune import FineTuneSettings
from tas_tf.searching.settings import SearchSettings
from tas_tf.training.network import TrainSettings
from trainers import options


def teacher_settings() -> TrainSettings:
    """The teacher's settings."""
    return TrainSettings(
        epochs=options.TEACHER_EPOCHS.value,
        warmup_epochs=options.TEACHER_WARMUP.value,
        lr=_rate(options.TEACHER_LR.value),
        **_common(),
    )


def search_settings() -> SearchSettings:
    """The search's settings."""
    return SearchSettings(
        epochs=options.SEARCH_EPOCHS.value + options.SEARCH_WARMUP.value,
        warmup_epochs=options.SEARCH_WARMUP.value,
        lr=_rate(options.SEARCH_LR.value),
        arch_lr=options.ARCH_LR.value,
        arch_betas=options.numbers(options.ARCH_BETAS, 2),
        arch_l2=options.ARCH_L2.value,
        temperature=(options.TEMPERATURE_START.value, options.TEMPERATURE_END.value),
        num_drawn=_num_drawn(),
        noise=options.NOISE.value,
        tolerance=options.TOLERANCE.value,
        cost_weight=options.COST_WEIGHT.value,
        cost_driver=options.COST_DRIVER.value,
        split_share=options.SPLIT_SHARE.value,
        init_logits=options.INIT_LOGITS.value,
        from_teacher=options.SEARCH_FROM_TEACHER.value,
        calibration_batches=options.CALIBRATION_BATCHES.value,
        held_out_limit=options.HELD_OUT_LIMIT.value,
        keep_shape=options.KEEP_SHAPE.value,
        jit_compile=options.JIT_COMPILE.value,
        **_common(),
    )


def student_settings() -> TrainSettings:
    """The student's settings."""
    return TrainSettings(
        epochs=options.STUDENT_EPOCHS.value,
        warmup_epochs=options.STUDENT_WARMUP.value,
        lr=_rate(options.STUDENT_LR.value),
        alpha=options.KD_ALPHA.value,
        temperature=options.KD_TEMPERATURE.value,
        **_common(),
    )


def qat_settings() -> FineTuneSettings:
    """The settings of the fine-tuning for 8 bits."""
    return FineTuneSettings(
        epochs=options.QAT_EPOCHS.value,
        lr=options.QAT_LR.value,
        alpha=options.KD_ALPHA.value,
        temperature=options.KD_TEMPERATURE.value,
        **_common(),
    )


def random_settings() -> TrainSettings:
    """The brief training's by which one of several random shapes is chosen."""
    return TrainSettings(
        epochs=options.RANDOM_EPOCHS.value, warmup_epochs=0, lr=_rate(options.STUDENT_LR.value), **_common()
    )


def _num_drawn() -> int | None:
    text = options.NUM_DRAWN.value
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"`--num_drawn` must be a whole number from 1 on, or all. Received: {text}.")
    return int(text)


def _rate(own: float | None) -> float:
    return options.LEARNING_RATE.value if own is None else own


def _common() -> dict[str, float]:
    return {
        "batch_size": options.BATCH_SIZE.value,
        "momentum": options.MOMENTUM.value,
        "l2": options.L2.value,
        "seed": options.SEED.value,
    }
