"""Puts the channels of a user's model in order of importance."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from tas_tf.data.form import Form
from tas_tf.data.sized import at_size_of
from tas_tf.data.stream import UserData
from tas_tf.data.streamed import open_data
from tas_tf.graph.custom import CustomObjects, admit
from tas_tf.importance.criteria import FROM_IMAGES
from tas_tf.importance.order import rank
from tas_tf.importance.settings import ImportanceSettings
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.losses import loss_of, loss_weights_of
from tas_tf.space.space import SearchSpace


def rank_channels(
    model: keras.Model,
    train: UserData | None = None,
    *,
    importance: str = ImportanceSettings.importance,
    importance_images: int = ImportanceSettings.importance_images,
    task: str | Mapping[str, str] | None = None,
    space: SearchSpace | None = None,
    custom_objects: CustomObjects | None = None,
    unsafe_load: bool = False,
) -> keras.Model:
    """Puts the channels of a trained model in order of importance, which doesn't change what the model computes.

    A search keeps the first filters of each layer, and `inherit_weights` copies the first ones: after this, they are
    the best ones. `compress` does it by itself.

    Args:
        model: Trained functional or Sequential CNN. It isn't changed.
        train: Training images and labels, as for `compress`; only `lfh` and `taylor` need them.
        importance: How channels are ranked: by their filters (`l1`, `fpgm`), by how much logits (`lfh`) or loss
            (`taylor`) react to them, or by their batch normalisation (`bn_scale`).
        importance_images: Number of training images for `lfh` and `taylor`.
        task: What the model is for, see `compress`.
        space: Search space of the model; by default `SearchSpace.from_model(model)`.
        custom_objects: Layer classes and functions of the model's own, see `compress`.
        unsafe_load: Also accepts Lambda layers, see `compress`.

    Returns:
        A copy of the model with its channels in another order.

    Raises:
        UserError: An argument is invalid, images are missing, or the model lacks batch normalisation for `bn_scale`.

    Example:
        ```python
        model = tas_tf.rank_channels(model)
        ```
    """
    settings = ImportanceSettings(importance=importance, importance_images=importance_images)
    admit(custom_objects, unsafe_load=unsafe_load)
    compiled = model
    if train is not None:
        model = at_size_of(train, model)
    space = SearchSpace.from_model(model) if space is None else space
    data, objective = None, None
    if importance in FROM_IMAGES and train is not None:
        objective = choose_objective(
            space.graph, task=task, loss=loss_of(compiled), loss_weights=loss_weights_of(compiled)
        )
        data = open_data(train, form=Form.of(space.graph), objective=objective, divided=False)
        objective = data.objective
    return rank(model, space, settings, None if data is None else data.calibration, objective)
