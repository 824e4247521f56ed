"""The search on its own, with a user's model and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.compression.contents import measure_file
from tas_tf.compression.defaults import Changes, check_settings, latency_settings, search_settings, seed_of
from tas_tf.cost.budget import Budget
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.form import Form
from tas_tf.data.sized import at_size_of
from tas_tf.data.stream import UserData
from tas_tf.data.streamed import open_data
from tas_tf.deploy.checks import check_deployable
from tas_tf.deploy.tflite import file_size
from tas_tf.errors import UserError
from tas_tf.graph.custom import CustomObjects, admit
from tas_tf.graph.graph import Graph
from tas_tf.latency.meter import meter_of
from tas_tf.latency.settings import LatencySettings
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.losses import loss_of, loss_weights_of
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import cost_and_limit, run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.space import SearchSpace
from tas_tf.training.strategy import make_strategy


def search(
    model: keras.Model,
    train: UserData,
    budget: str = "macs:0.5",
    *,
    space: SearchSpace | None = None,
    settings: SearchSettings | Changes | None = None,
    task: str | Mapping[str, str] | None = None,
    loss: Any = None,
    loss_weights: Any = None,
    augment: Augmentation | None = None,
    strategy: tf.distribute.Strategy | None = None,
    measure: Callable[[keras.Model], int] | None = None,
    latency: LatencySettings | Changes | None = None,
    axes: str | None = None,
    width_divisor: int | None = None,
    couple_trunk: bool | None = None,
    search_dense: bool | None = None,
    custom_objects: CustomObjects | None = None,
    unsafe_load: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> SearchResult:
    """Searches the widths and depths of a network within a budget.

    Args:
        model: Functional or Sequential CNN. It isn't changed. By default the search starts from its weights.
        train: Training images and labels, as for `compress`. One half trains the weights, the other half the logits.
        budget: Highest cost of the shape, see `Budget`.
        space: Search space made by `SearchSpace.from_model(model)`; by default it is made from the options below.
        settings: Settings of the search; by default 20 epochs from the model's weights. A mapping changes single
            defaults, see `compress`.
        task: What the model is for, see `compress`.
        loss: Loss in place of the one that the model was compiled with, see `compress`.
        loss_weights: Weights of the losses of several outputs, see `compress`.
        augment: Changes to training images.
        strategy: Devices; by default all GPUs.
        measure: Returns the file size of a network in bytes, for a budget in bytes; see `compress`.
        latency: Settings of a budget in time, see `compress`.
        axes: What the search may reduce, see `compress`. This and the next three go without `space`.
        width_divisor: See `compress`.
        couple_trunk: See `compress`.
        search_dense: See `compress`.
        custom_objects: Layer classes and functions of the model's own, see `compress`.
        unsafe_load: Also accepts Lambda layers, see `compress`.
        callbacks: Keras callbacks.
        verbose: As in Keras.

    Returns:
        The shape found, its metrics, and the supernet. `build_student(space, result.shape)` builds the network.

    Raises:
        UserError: An argument is invalid, the model can't be read or can't be exported, the data doesn't fit it, the
            budget can't be reached, or training diverges.

    Example:
        ```python
        found = tas_tf.search(model, train, budget="macs:0.5", space=space)
        ```
    """
    check_settings("settings", settings, SearchSettings)
    check_settings("latency", latency, LatencySettings)
    admit(custom_objects, unsafe_load=unsafe_load)
    compiled, model = model, at_size_of(train, model)
    graph = Graph.from_model(model)
    named: dict[str, Any] = {
        "axes": axes,
        "width_divisor": width_divisor,
        "couple_trunk": couple_trunk,
        "search_dense": search_dense,
    }
    options = {name: value for name, value in named.items() if value is not None}
    if space is None:
        space = SearchSpace.from_graph(graph, **options)
    elif options:
        raise UserError(f"`space` can't be combined with {', '.join(options)}. Give one or the other.")
    elif space.graph.digest != graph.digest:
        raise UserError(
            f"`space` must be made from `model`, {graph.network}. Received the space of another network, "
            f"{space.graph.network}."
        )
    strategy = make_strategy() if strategy is None else strategy
    check_deployable(model)
    wanted = Budget.parse(budget)
    measuring: dict[str, Any] = {
        "settings": latency_settings(latency),
        "say": print if verbose != 0 else lambda text: None,
    }
    meter = meter_of(wanted.kind, space, measure_file=measure or file_size, **measuring)
    cost_and_limit(space, wanted, meter)  # rejects most budgets before any data is read
    data = open_data(
        train,
        form=Form.of(graph),
        objective=choose_objective(
            graph, task=task, loss=loss_of(compiled, loss), loss_weights=loss_weights_of(compiled, loss_weights)
        ),
        augment=augment,
        seed=seed_of(settings),
    )
    settings = search_settings(settings, data, strategy.num_replicas_in_sync)
    if wanted.kind == "bytes":  # files hold the names of the classes
        meter = meter_of("bytes", space, measure_file=measure or measure_file(space, data), **measuring)
    return run_search(
        space,
        data,
        wanted,
        settings,
        strategy=strategy,
        teacher=model,
        callbacks=lambda monitor: callbacks,
        verbose=verbose,
        meter=meter,
    )
