"""Optimizers and schedules of the search and of ordinary training."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tas_tf.training.settings import LogitOptimisation, Optimisation


def cosine(
    base_lr: float, *, epochs: int, steps_per_epoch: int, warmup_epochs: int = 0
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a learning rate that falls to zero along half a cosine, after an optional linear warm-up.

    Args:
        base_lr: Highest learning rate.
        epochs: Total number of epochs, including the warm-up.
        steps_per_epoch: Batches in an epoch.
        warmup_epochs: Epochs in which the rate rises to `base_lr`.

    Raises:
        ValueError: If the warm-up leaves no epoch to train.

    >>> schedule = cosine(0.1, epochs=4, steps_per_epoch=10, warmup_epochs=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 20, 30, 40)]
    [0.005, 0.1, 0.05, 0.0]
    """
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(
            "`warmup_epochs` must be at least 0 and below `epochs`. "
            f"Received: warmup_epochs={warmup_epochs}, epochs={epochs}."
        )
    warmup_steps = warmup_epochs * steps_per_epoch
    decay_steps = (epochs - warmup_epochs) * steps_per_epoch
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(base_lr, decay_steps)
    return keras.optimizers.schedules.CosineDecay(
        # Start above zero: a step at zero would be lost.
        base_lr / warmup_steps,
        decay_steps,
        warmup_target=base_lr,
        warmup_steps=warmup_steps,
    )


class Course:
    """The learning rate of `cosine`, for several trainings in turn: its numbers can change without a new trace.

    Attributes:
        schedule: Schedule for an optimizer.
        steps: Number of steps of the training, a variable.
    """

    def __init__(self) -> None:
        self._lr, self._first, self._falling, self._warmup = (
            tf.Variable(1.0, trainable=False, dtype=tf.float32) for _ in range(4)
        )
        self.steps = tf.Variable(1.0, trainable=False, dtype=tf.float32)
        self.schedule = keras.optimizers.schedules.CosineDecay(
            self._first, self._falling, warmup_target=self._lr, warmup_steps=self._warmup
        )

    def plan(self, lr: float, *, steps: int, warmup_steps: int = 0) -> None:
        """Sets the numbers of the next training.

        Args:
            lr: Highest learning rate.
            steps: Number of steps, including the warm-up.
            warmup_steps: Steps in which the rate rises to `lr`.
        """
        self._lr.assign(lr)
        self._first.assign(lr / max(1, warmup_steps))
        self._falling.assign(steps - warmup_steps)
        self._warmup.assign(warmup_steps)
        self.steps.assign(steps)


@keras.saving.register_keras_serializable(package="tas_tf")
class L2SGD(keras.optimizers.SGD):
    """SGD that adds `l2 * variable` to every gradient.

    The penalty passes through the momentum, as in the paper, whereas Keras's `weight_decay=` is decoupled from the
    gradient and far weaker. The penalty is added exactly once, after the gradients of all replicas are summed.

    Args:
        learning_rate: A number or a schedule.
        l2: Factor of the penalty's gradient.
        **kwargs: Arguments of `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate=0.01, *, l2: float = 0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable from its reduced gradient."""
        penalised = tf.convert_to_tensor(gradient) + self.l2 * tf.cast(variable, gradient.dtype)
        super().update_step(penalised, variable, learning_rate)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "l2": self.l2}


def sgd(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    momentum: float = Optimisation.momentum,
    l2: float = 0.0,
) -> keras.optimizers.SGD:
    """Returns the optimizer of the weights, SGD with Nesterov momentum.

    Args:
        learning_rate: A number or a schedule.
        momentum: Momentum, from 0 to 1.
        l2: L2 penalty in the gradient of *every* variable. Leave it at 0 if the training step calls `add_l2`.
    """
    if l2:
        return L2SGD(learning_rate, momentum=momentum, nesterov=True, l2=l2)
    return keras.optimizers.SGD(learning_rate, momentum=momentum, nesterov=True)


def arch_adam(
    learning_rate: float, *, betas: tuple[float, float] = LogitOptimisation.arch_betas
) -> keras.optimizers.Adam:
    """Returns the optimizer of architecture logits, with the epsilon of the paper's code."""
    return keras.optimizers.Adam(learning_rate, beta_1=betas[0], beta_2=betas[1], epsilon=1e-8)


def add_l2(
    gradients: Sequence[tf.Tensor | tf.IndexedSlices | None],
    variables: Sequence[keras.Variable | tf.Variable],
    l2: float,
) -> list[tf.Tensor | tf.IndexedSlices | None]:
    """Adds the gradient of `l2 / 2 * sum(variable ** 2)` to each gradient.

    Inside a replica, the function adds the replica's share, because optimizers sum gradients over replicas.

    Args:
        gradients: One gradient for each variable. `None` stays `None`, so variables that the loss doesn't reach aren't
            pulled to zero.
        variables: Variables with the shapes of the gradients.
        l2: Factor of the penalty's gradient.

    Returns:
        Dense gradients, or the given ones if `l2` is 0.

    >>> gradient, none = add_l2([tf.constant(1.0), None], [tf.Variable(2.0), tf.Variable(2.0)], 0.5)
    >>> float(gradient), none
    (2.0, None)
    """
    if not l2:
        return list(gradients)
    share = l2
    if not tf.distribute.in_cross_replica_context():
        share = l2 / tf.distribute.get_strategy().num_replicas_in_sync
    return [
        None if gradient is None else tf.convert_to_tensor(gradient) + share * tf.cast(variable, gradient.dtype)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]
