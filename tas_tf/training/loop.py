"""The training loop of teacher, search and distillation, for every strategy."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from tas_tf import workers
from tas_tf.data.share import reading
from tas_tf.data.training_data import EpochsDataset
from tas_tf.errors import UserError
from tas_tf.interruption import REQUESTS, at_once, deferred
from tas_tf.training.answers import OTHER_ORDER
from tas_tf.training.checkpoint import Checkpoints, Progress, Saving, list_optimizers, variables_of
from tas_tf.training.prepare import prepare
from tas_tf.training.strategy import check_same_steps, distribute, own_share

#: Key of the durations of epochs, including validation, in a history.
SECONDS = "seconds"
_SECONDS_BETWEEN_LOGS = 0.5  # reading logs waits for the accelerator, and this is enough for a progress bar
_LONG_VALIDATION = 5.0  # seconds for which a request to end can wait


class Diverged(UserError):
    """A loss or a weight isn't finite."""


def fit(
    model: keras.Model,
    epochs_dataset: EpochsDataset,
    *,
    strategy: tf.distribute.Strategy,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    saving: Saving | None = None,
    validation: Callable[[], dict[str, float]] | None = None,
    verbose: int | str = "auto",
    steps: Steps | None = None,
) -> keras.callbacks.History:
    """Trains `model` with its own `train_step`, or resumes where an earlier call was interrupted.

    The model must have been built and compiled inside `strategy.scope()`. If it overrides `train_step`, its optimizers
    (`model.optimizer` and all of `model.optimizers`) must be built. Its loss must be divided by the number of replicas,
    because optimizers sum gradients over replicas. `keras.losses` objects do that; plain loss functions don't.

    Two things differ from `keras.Model.fit`. Callbacks get logs in `on_train_batch_end` only twice a second and after
    the last batch, otherwise an empty dict. Callbacks lose their Python state when a run is resumed, so training must
    not depend on that state.

    Args:
        model: Model to train in place.
        epochs_dataset: Function that takes the number of the first epoch, and of batches to leave out of it. Returns
            an endless dataset of global batches, or one whose cardinality is that of the rest of the epoch. The order
            within an epoch must depend only on the epoch, otherwise a resumed run differs from an uninterrupted one. It
            may have an `element_spec`, if making a dataset takes long.
        strategy: Distribution strategy.
        epochs: Total number of epochs, including those before a resume.
        steps_per_epoch: Global batches in an epoch.
        callbacks: Keras callbacks. State that they set in the model is saved with the epoch. What they set at the start
            of an epoch must depend only on the epoch.
        saving: Where to save to and to resume from, and how often inside epochs; `None` saves nothing.
        validation: Called after each epoch; its results are logged as `val_<name>`.
        verbose: As in Keras. `"auto"` shows a bar on a terminal, and one line an epoch elsewhere.
        steps: Steps of this model, if it was trained before: they are traced only once.

    Returns:
        The history of all epochs, with their durations under `SECONDS`. A finished run is restored and not continued.

    Raises:
        Diverged: A loss or weight isn't finite; the last checkpoint is kept.
        KeyboardInterrupt: On Ctrl-C, after the state has been saved; see `tas_tf.interruption.listening`.
        Terminated: On SIGTERM, likewise.
        UserError: The batch can't be split evenly, or the checkpoint belongs to another model.
        ValueError: If the model isn't ready, or the dataset ends.
    """
    for name, value in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
        if value < 1:
            raise UserError(f"`{name}` must be at least 1. Received: {value}.")
    spec = getattr(epochs_dataset, "element_spec", None) or epochs_dataset(0).element_spec
    batch_size = tf.nest.flatten(spec)[0].shape[0]
    prepare(model, strategy, spec)
    variables = variables_of(model)
    checkpoints = None if saving is None else Checkpoints(saving, variables)
    progress = Progress() if checkpoints is None else checkpoints.restore()
    check_same_steps(epochs, steps_per_epoch, batch_size)
    # New optimizers are equal everywhere.
    workers.share(itertools.chain(*variables.values()) if progress != Progress() else model.variables)
    progress.check(steps_per_epoch)
    if progress.epochs > epochs:
        raise UserError(
            f"`epochs` is {epochs}, but {progress.epochs} epochs are done in {saving.folder}. "
            "Use `overwrite` to start again, or another `run_dir`."
        )

    history = keras.callbacks.History()
    callback_list = keras.callbacks.CallbackList(
        [*callbacks, history],
        add_progbar=verbosity(verbose) != 0,
        model=model,
        verbose=verbosity(verbose),
        epochs=epochs,
        steps=steps_per_epoch,
    )
    finished = progress.stopped or progress.epochs == epochs
    model.stop_training = False
    if not finished:
        callback_list.on_train_begin()
    # An epoch that was trained but not validated has left its logs behind those of finished epochs.
    logs = {name: values[-1] for name, values in progress.history.items() if len(values) > progress.epochs}
    before = {name: values[: progress.epochs] for name, values in progress.history.items() if progress.epochs}
    progress = dataclasses.replace(progress, history=before)
    # Set after `on_train_begin`, which empties the history.
    history.history = {name: list(values) for name, values in before.items()}
    history.epoch = list(range(progress.epochs))
    if finished:
        return history

    steps = Steps(model, strategy) if steps is None else steps
    batches, is_long = None, True  # until a validation has shown otherwise
    for epoch in range(progress.epochs, epochs):
        done, inside = progress.steps, _InsideEpoch(model, checkpoints, progress, steps_per_epoch)
        is_trained = done == steps_per_epoch
        if batches is None and not is_trained:
            with reading(own_share()):
                dataset = epochs_dataset(epoch, done)
            ends = int(dataset.cardinality()) == steps_per_epoch - done
            batches = iter(distribute(strategy, dataset, batch_size))
        if not done:
            model.reset_metrics()
        callback_list.on_epoch_begin(epoch)
        with contextlib.nullcontext() if checkpoints is None else deferred():
            if not is_trained:
                logs = steps.run(epoch, batches, range(done, steps_per_epoch), callback_list, inside.after_step)
                batches = None if ends else batches
                _check_weights(model, epoch)
            if validation is not None:
                is_saved = is_trained or checkpoints is None or inside.before_validation(logs, is_long=is_long)
                started = time.monotonic()
                # Several workers must end together.
                with at_once() if is_saved and workers.count() == 1 else contextlib.nullcontext():
                    logs |= {f"val_{name}": float(value) for name, value in validation().items()}
                is_long = time.monotonic() - started > _LONG_VALIDATION
            callback_list.on_epoch_end(epoch, logs)
            # Kept out of the logs: progress bars show their own time.
            history.history.setdefault(SECONDS, []).append(inside.seconds)
            progress = Progress(epoch + 1, bool(model.stop_training), history.history)
            if checkpoints is not None:
                # Save after the callbacks, since their changes to the model belong to this epoch.
                checkpoints.save(progress)
                workers.any_wants(False)  # all of them end if one is to
        if progress.stopped:
            break
    callback_list.on_train_end(logs)
    return history


class Steps:
    """Runs the training steps of a model. The step is traced once, for any number of epochs and trainings.

    Args:
        model: The model, see `fit`.
        strategy: Distribution strategy.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._model = model
        # First step of the epoch with a non-finite loss, kept on the device so that steps needn't wait for the check.
        self._bad_step = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._step = self._make_step(model, strategy)

    def run(
        self,
        epoch: int,
        batches: Iterator,
        steps: range,
        callback_list: keras.callbacks.CallbackList,
        after_step: Callable[[int, Callable[[], None]], None],
    ) -> dict[str, float]:
        """Trains one epoch, or the rest of one, and returns its logs.

        Args:
            epoch: Number of the epoch, from 0, for messages.
            batches: Where the batches come from.
            steps: Numbers of the steps.
            callback_list: Callbacks.
            after_step: Called with the number of finished steps, and a function that checks their losses.

        Raises:
            Diverged: A loss isn't finite.
            UserError: Images came in another order than when the teacher was asked about them.
            ValueError: The batches end.
        """
        logs, last_read = {}, time.monotonic()
        self._bad_step.assign(-1)
        for step in steps:
            callback_list.on_train_batch_begin(step)
            try:
                logs = self._step(batches, tf.constant(step, tf.int64))
            except tf.errors.InvalidArgumentError as error:
                if OTHER_ORDER not in str(error):
                    raise
                raise UserError(
                    f"{OTHER_ORDER}, at step {step + 1} of epoch {epoch + 1}. Don't change images or labels, or set "
                    "random seeds, during a training; or set `views` to 0."
                ) from error
            except tf.errors.OutOfRangeError as error:
                raise ValueError(
                    f"The dataset ended at step {step + 1} of epoch {epoch + 1}. "
                    "`epochs_dataset` must return an endless one, or one of known cardinality for each epoch."
                ) from error
            is_last = step + 1 == steps.stop
            if due := is_last or time.monotonic() - last_read > _SECONDS_BETWEEN_LOGS:
                last_read = time.monotonic()
            if is_last or (due and workers.count() == 1):  # the clocks of several workers differ
                self._check_losses(epoch)
            callback_list.on_train_batch_end(step, logs if due else {})
            after_step(step + 1, lambda: self._check_losses(epoch))
            if self._model.stop_training:
                self._check_losses(epoch)
                break
        return self._epoch_logs(logs)

    def _make_step(self, model, strategy):
        names: list[str] = []  # of what a step logs, known once it is traced

        def train_replica(batch):
            results = model.train_step(batch)
            names[:] = results
            values = [tf.cast(value, tf.float32) for value in results.values()]
            return tf.stack(values) if values else tf.zeros([0])

        # As in Keras, AutoGraph doesn't rewrite `train_step`.
        @tf.function(reduce_retracing=True)
        @tf.autograph.experimental.do_not_convert
        def train(batches, step):
            results = strategy.run(train_replica, args=(batches.get_next(),))
            means = strategy.reduce(tf.distribute.ReduceOp.MEAN, results, axis=None)
            logs = dict(zip(names, tf.unstack(means), strict=True))
            losses = [value for name, value in logs.items() if name == "loss" or name.endswith("_loss")]
            if losses:
                finite = tf.reduce_all(tf.math.is_finite(tf.stack(losses)))
                is_first = tf.logical_and(tf.logical_not(finite), self._bad_step < 0)
                self._bad_step.assign(tf.where(is_first, step, self._bad_step))
            return logs

        return train

    def _check_losses(self, epoch: int) -> None:
        if (step := int(self._bad_step.numpy())) >= 0:
            raise _diverged(self._model, f"the loss at step {step + 1} of epoch {epoch + 1}")

    def _epoch_logs(self, logs: dict[str, tf.Tensor]) -> dict[str, float]:
        """Returns the model's metrics if the step logs exactly these, otherwise the last step's logs."""
        results = self._model.get_metrics_result()
        # Metrics read outside a replica are exact over all replicas, not a mean of means.
        chosen = results if set(results) == set(logs) else logs
        return {name: float(value) for name, value in chosen.items()}


class _InsideEpoch:
    """Saves inside an epoch, if it is time to or if the process is to end.

    Args:
        model: The model that is trained.
        checkpoints: Where to save to; `None` saves nothing.
        progress: Progress at the start of the epoch.
        steps: Steps of the epoch. The last one's state is saved with the epoch, or before a validation.
    """

    def __init__(self, model: keras.Model, checkpoints: Checkpoints | None, progress: Progress, steps: int) -> None:
        self._model, self._checkpoints, self._progress, self._steps = model, checkpoints, progress, steps
        self._started = time.monotonic() - progress.seconds

    @property
    def seconds(self) -> float:
        """Duration of the epoch so far, including what was trained before an interruption."""
        return round(time.monotonic() - self._started, 3)

    def after_step(self, steps: int, check_losses: Callable[[], None]) -> None:
        """Saves if there is a reason to.

        Args:
            steps: Number of finished steps.
            check_losses: Raises an error if the loss of one of them isn't finite.

        Raises:
            Diverged: The state isn't worth saving.
            KeyboardInterrupt: The process is to end, and the state is saved.
            Terminated: Likewise, on SIGTERM.
        """
        if self._checkpoints is None or steps == self._steps or not self._checkpoints.wanted():
            return
        check_losses()
        _check_weights(self._model, self._progress.epochs)
        self._save(steps, self._progress.history)
        if workers.any_wants(False):  # a request may have come meanwhile, and all workers end together
            REQUESTS.check()

    def before_validation(self, logs: dict[str, float], *, is_long: bool) -> bool:
        """Saves after the last step if it is time to, or so that a request can end a long validation; returns whether.

        Args:
            logs: Those of the epoch. They are saved behind those of finished epochs.
            is_long: Whether the validation, which may change the model's statistics, takes long, on the chief.
        """
        if self._model.stop_training or not (self._checkpoints.wanted() or workers.once(lambda: is_long)):
            return False
        before = self._progress.history
        self._save(self._steps, before | {name: [*before.get(name, ()), value] for name, value in logs.items()})
        return True

    def _save(self, steps: int, history: dict[str, list[float]]) -> None:
        inside = {"steps": steps, "seconds": self.seconds, "steps_per_epoch": self._steps}
        self._checkpoints.save(dataclasses.replace(self._progress, history=history, **inside))


def _check_weights(model: keras.Model, epoch: int) -> None:
    """Stops training if weights aren't finite, before they overwrite a good checkpoint."""
    bad = None
    for variable in model.variables:
        value = tf.convert_to_tensor(variable.value)
        if value.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(value))):
            bad = bad or f"the variable {variable.path}"
    if workers.any_true(bad is not None):  # statistics may differ from worker to worker
        raise _diverged(model, f"{bad or 'a variable of another worker'} in epoch {epoch + 1}")


def _diverged(model: keras.Model, what: str) -> Diverged:
    found = [keras.ops.convert_to_numpy(optimizer.learning_rate) for optimizer in list_optimizers(model)]
    rates = ", ".join(f"{float(rate):.3g}" for rate in found)
    received = f" (now {rates})" if rates else ""
    return Diverged(
        f"Training diverged: {what} is not finite. Lower the learning rate{received} or warm it up (`lr`, "
        "`warmup_epochs`). The last checkpoint, if any, is kept."
    )


def verbosity(verbose: int | str) -> int:
    """Resolves `auto`: 1 (a bar) on a terminal, 2 (one line an epoch) elsewhere."""
    if verbose == "auto":
        return 1 if sys.stdout.isatty() else 2
    return int(verbose)
