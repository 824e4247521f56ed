"""Chooses the devices that train, and checks that a global batch fits them."""

import functools

import tensorflow as tf

from tas_tf import workers
from tas_tf.data.share import Share
from tas_tf.errors import UserError
from tas_tf.training.cluster import join_cluster

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Returns the distribution strategy called `name`.

    Args:
        name: `one_device` trains on the first GPU, or on the CPU if there is no GPU. `mirrored` keeps a copy of the
            model on every visible GPU or, without GPUs, on every logical CPU device. `auto` is `mirrored` with two or
            more GPUs, otherwise `one_device`. `multi_worker` does so on several machines, see `join_cluster`.

    Raises:
        UserError: If the name is unknown, or there are no other workers.
    """
    if name not in STRATEGIES:
        raise UserError(f"`strategy` is unknown. Expected one of: {', '.join(STRATEGIES)}. Received: {name!r}.")
    if name == "multi_worker":
        return join_cluster()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        # The default strategy places everything on the first GPU by itself and adds no wrappers.
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return _mirrored(tuple(device.name for device in devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # One object per process: each new object numbers its collective operations from the start, and fails if an
    # operation of another shape has already run under the same number.
    return tf.distribute.MirroredStrategy(devices)


def own_share() -> Share:
    """The part of each global batch that this worker trains on."""
    return Share(workers.number(), workers.count())


def distribute(
    strategy: tf.distribute.Strategy, dataset: tf.data.Dataset, batch_size: int | None
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """Gives each replica its rows of all batches, in the order of the replicas.

    Args:
        strategy: Distribution strategy.
        dataset: Global batches; or those rows of them that are this worker's, see `tas_tf.data.share.reading`.
        batch_size: Rows of a global batch; `None` if it varies, which several replicas can't train on.
    """
    if workers.count() == 1:
        return strategy.experimental_distribute_dataset(dataset)
    share = own_share()
    if tf.nest.flatten(dataset.element_spec)[0].shape[0] == batch_size:
        rows = share.rows(batch_size)
        dataset = dataset.map(
            lambda *batch: tf.nest.map_structure(lambda tensor: tensor[rows], batch),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.rebatch(batch_size // strategy.num_replicas_in_sync).prefetch(tf.data.AUTOTUNE)
    return strategy.distribute_datasets_from_function(lambda context: dataset.with_options(options))


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int | None, parts: int = 1) -> None:
    """Checks that a global batch can be split evenly over the replicas, and there into parts.

    Args:
        strategy: Distribution strategy.
        batch_size: Number of examples in a global batch; `None` if it varies.
        parts: Parts of a replica's share, see `tas_tf.training.accumulation.over_parts`.

    Raises:
        UserError: If the batch size isn't positive, or can't be split into equal shares, one for each part of each
            replica's.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size is None:
        if replicas > 1:
            raise UserError(
                f"The batch size varies, but {replicas} replicas need equal shares of every batch. "
                "Batch the dataset with `drop_remainder=True`, or use one device."
            )
        return
    if batch_size < 1:
        raise UserError(f"`batch_size` must be positive. Received: {batch_size}.")
    if batch_size % (shares := replicas * parts):
        lower = batch_size - batch_size % shares
        near = f"{lower} or {lower + shares}" if lower else str(shares)
        names = f"the number of replicas, {replicas}"
        if parts > 1:
            names = f"{shares}: `accumulate`={parts}" + (
                f" parts on each of {replicas} replicas" if replicas > 1 else ""
            )
        ways = "one device" if parts == 1 else "another `accumulate`"
        raise UserError(f"`batch_size` must be divisible by {names}. Received: {batch_size}. Use {near}, or {ways}.")


def check_same_steps(*sizes: int | None) -> None:
    """Checks that all workers have as much data.

    Args:
        *sizes: Epochs, steps of an epoch, and rows of a global batch, if that doesn't vary.

    Raises:
        UserError: They haven't.
    """
    if workers.any_true(workers.once(lambda: sizes) != sizes):
        raise UserError(
            "`dataset` must be the same on all workers, and come in the same order. Received: another number of steps, "
            f"or batches of another size, on one of them. Worker {workers.number()} has {sizes[1]} steps of {sizes[2]}."
        )
