"""The search alone, on a user's model and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.compression.defaults import default_search
from tas_tf.cost.budget import Budget
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.stream import UserData
from tas_tf.data.streamed import open_data
from tas_tf.deploy.tflite import file_size
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import prepare, run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.space import SearchSpace
from tas_tf.student.file_size import FileSize
from tas_tf.training.strategy import make_strategy


def search(
    model: keras.Model,
    train: UserData,
    budget: str = "macs:0.5",
    *,
    space: SearchSpace | None = None,
    settings: SearchSettings | None = None,
    augment: Augmentation | None = None,
    strategy: tf.distribute.Strategy | None = None,
    measure: Callable[[keras.Model], int] = file_size,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    **options: Any,
) -> SearchResult:
    """Searches the widths and depths of a network within a budget.

    Args:
        model: Functional or Sequential classifier; it stays as it is. By default the search starts from its weights.
        train: Training images and labels, as for `compress`. One half trains weights, the other half the choice.
        budget: The most that the shape may cost, see `Budget`.
        space: What may change, for a space made before by `SearchSpace.from_model(model)`.
        settings: Settings of the search; by default 20 epochs from the model's weights.
        augment: Changes to training images.
        strategy: Devices; by default all GPUs.
        measure: Bytes of the file that a network becomes, for a budget in bytes.
        callbacks: Keras callbacks.
        verbose: As in Keras.
        **options: Instead of `space`: `axes`, `width_divisor`, `couple_trunk` and `search_dense`, see `compress`.

    Returns:
        The shape found, numbers about it, and the supernet. `build_student(space, result.shape)` builds the network.

    Raises:
        UserError: An argument is off, the model can't be read, the data doesn't fit it, the budget can't be reached, or
            training diverges.

    Example:
        ```python
        found = tas_tf.search(model, train, budget="macs:0.5", space=space)
        ```
    """
    graph = Graph.from_model(model)
    if space is None:
        space = SearchSpace.from_graph(graph, **options)
    elif options:
        raise UserError(f"`space` is given, so that {', '.join(options)} must not be. Give one or the other.")
    elif space.graph.digest != graph.digest:
        raise UserError(
            f"`space` must be of `model`, {graph.network}. Received one of another network, {space.graph.network}."
        )
    strategy = make_strategy() if strategy is None else strategy
    wanted, files = Budget.parse(budget), FileSize(space, measure)
    prepare(space, wanted, files)  # refused before anything is read
    data = open_data(
        train,
        image_shape=graph.input.shape[1:],
        num_classes=graph.num_classes,
        augment=augment,
        seed=0 if settings is None else settings.seed,
    )
    settings = default_search(data, strategy.num_replicas_in_sync) if settings is None else settings
    return run_search(
        space,
        data,
        wanted,
        settings,
        strategy=strategy,
        teacher=model,
        callbacks=lambda monitor: callbacks,
        verbose=verbose,
        file_size=files,
    )
