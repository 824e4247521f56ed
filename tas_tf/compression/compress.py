"""Makes a trained Keras model smaller in one call, with the user's data and without files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import keras
import tensorflow as tf

from tas_tf.compression.checks import REMEDY, check_alike, score_training, warn_of_chance
from tas_tf.compression.choices import check_undecided, checked_inherit, checked_recipe
from tas_tf.compression.contents import describe_contents, measure_file
from tas_tf.compression.defaults import (
    Changes,
    check_settings,
    latency_settings,
    race_settings,
    search_settings,
    seed_of,
    training_settings,
)
from tas_tf.compression.finding import Finder
from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import reported
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.form import Form
from tas_tf.data.sized import at_size_of
from tas_tf.data.stream import UserData
from tas_tf.data.streamed import open_data
from tas_tf.deploy.checks import check_deployable
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.tflite import file_size
from tas_tf.graph.custom import CustomObjects, admit
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import with_sizes_of
from tas_tf.importance.order import rank
from tas_tf.importance.settings import ImportanceSettings
from tas_tf.latency.meter import meter_of
from tas_tf.latency.settings import LatencySettings
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.losses import loss_of, loss_weights_of
from tas_tf.race.race import RaceResult
from tas_tf.race.settings import RaceSettings
from tas_tf.recipes import SEARCHING
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import cost_and_limit
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.settings import SpaceSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.timing.duration import Deadline, parse_duration
from tas_tf.training.class_order import check_order
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import (
    check_above_chance,
    inherited,
    logits_of,
    network_metrics,
    train_network,
)
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy


@dataclass(frozen=True)
class Compressed:
    """What `compress` returns.

    Attributes:
        student: The small network, made of standard Keras layers. It ends as the model does.
        shape: How many filters and blocks of the model were kept.
        teacher_metrics: `loss` and scores of the model on the validation images, such as `accuracy`, its `macs` and
            `params`, and as `metric` the name of the score that counts for its task.
        student_metrics: The same metrics for the student, and more about its training; for a budget in time also
            `latency_ms`, as measured in turns with the model or predicted from a `table`, and `latency_share`, its
            share of the model's.
        race: The outcome of the race between shapes; `None` if a differentiable search found the shape.
        search: The result of the differentiable search, if there was one.
        metadata: Metadata for exported files: class names, input and shape. See `export_tflite`.

    Example:
        ```python
        print(result.teacher_metrics["accuracy"], result.student_metrics["accuracy"], result.student_metrics["macs"])
        ```
    """

    student: keras.Model = field(repr=False)
    shape: Shape = field(repr=False)
    teacher_metrics: dict[str, Any]
    student_metrics: dict[str, Any]
    race: RaceResult | None = field(repr=False)
    search: SearchResult | None = field(repr=False)
    metadata: Metadata = field(repr=False)

    def __str__(self) -> str:
        teacher, student = self.teacher_metrics, self.student_metrics
        score = student["metric"]
        return "\n".join(
            f"{name.replace('_', ' ')}: {teacher[name]:,} to {student[name]:,}"
            if isinstance(student[name], int)
            else f"{name.replace('_', ' ')}: {teacher[name]:.4f} to {student[name]:.4f}"
            for name in (score, "macs", "params")
        )


def compress(
    model: keras.Model,
    train: UserData,
    validation: UserData,
    budget: str = "macs:0.5",
    *,
    recipe: str | None = None,
    time: str | None = None,
    race: RaceSettings | Changes | None = None,
    search: SearchSettings | Changes | None = None,
    training: TrainSettings | Changes | None = None,
    inherit: str | None = None,
    importance: str = ImportanceSettings.importance,
    task: str | Mapping[str, str] | None = None,
    loss: Any = None,
    loss_weights: Any = None,
    class_weight: Mapping[int, float] | None = None,
    augment: Augmentation | None = None,
    axes: str = SpaceSettings.axes,
    width_divisor: int = SpaceSettings.width_divisor,
    couple_trunk: bool | None = None,
    search_dense: bool = SpaceSettings.search_dense,
    strategy: tf.distribute.Strategy | None = None,
    measure: Callable[[keras.Model], int] | None = None,
    latency: LatencySettings | Changes | None = None,
    custom_objects: CustomObjects | None = None,
    unsafe_load: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> Compressed:
    """Makes a trained network smaller: finds widths and depths within a budget, then distils.

    By default, four candidate shapes race. Each starts from the model's most important filters and is trained briefly;
    the better half goes on, until one is left. The winner is then trained for 50 epochs. Plain uniform widths are among
    the candidates. `training={"epochs": 100}` changes a single setting; more epochs usually give a better student.
    `recipe="fast"` trains the winner for 10 epochs.

    `search={"epochs": 20}` finds the shape by the differentiable search instead, which starts from the model's weights.
    `SearchSettings()` and `TrainSettings()` replace all settings by the paper's, which are made for training from
    scratch: some 900 epochs.

    Data can be a `tf.data.Dataset` of `(images, labels)`, in batches or one by one, a tuple `(images, labels)` of
    arrays, or a `keras.utils.PyDataset`. Sample weights may follow the labels; they count in training, not in scores.
    Several inputs or outputs come in a dictionary or list, as for `model.fit`. Data is read as a stream, once to
    count and check labels, then in each epoch; images are never collected in memory. Pass images as the model takes
    them. Labels are class numbers, one-hot vectors or texts, whose classes are sorted by name. Shuffle a dataset
    whose images are sorted by class. Use `augment` instead of augmenting inside the data: the search splits the data
    into two halves by the contents of each image, and random changes would mix the halves.

    This function writes no files. Use the commands for logs, reports, and steps that can be interrupted and resumed.

    Args:
        model: Trained functional or Sequential CNN. It isn't changed. If it takes
            images of any size, costs are those at the size of the training images, and the student takes any size too.
        train: Training images and labels.
        validation: Other images and labels, used only for scores, not to train or to choose the shape.
        budget: Highest cost of the student, such as `macs:0.5`, `params:200k`, `bytes:400k` or
            `latency:2ms`; see `Budget`.
        recipe: How the shape is found: by a race of several shapes, `balanced` or `fast`, or by the differentiable
            search alone, `paper`. The default is `balanced`, or `paper` if `search` is given.
        time: Time for the whole call, such as `20m` or `1h30m`: it determines the number of shapes in the race and the
            epochs, which can't be given as well; those of `RaceSettings` and `TrainSettings` don't count.
        race: Settings of the race, or a mapping that changes some of the default ones.
        search: The same for the differentiable search.
        training: The same for the student's training.
        inherit: Where the student's weights come from: the `race` or the `supernet` of the search, which are the
            defaults; the `teacher` (the model's most important filters); or `none` (fresh weights, which need many
            epochs).
        importance: How the channels of the model are ranked before any are dropped, see `rank_channels`; `none` for
            the model's own order.
        task: What the model is for: `classification`, `binary`, `multilabel` or `regression`. By default, the loss that
            it was compiled with and its last activation tell. Outputs may be per image or per pixel. For
            several outputs, a dictionary by name.
        loss: Loss of the student in place of the one that the model was compiled with, in any form that Keras takes.
        loss_weights: Weights of the losses of several outputs, likewise.
        class_weight: Weights of classes in the student's training, by class number; others have weight 1.
        augment: Changes to training images. Shifted float images are padded with 0.
        axes: What the search may reduce: `width`, `depth` or `both`.
        width_divisor: Widths are rounded to multiples of this number.
        couple_trunk: Gives all blocks of a stage the same width; by default only if projections would be expensive.
        search_dense: Also searches hidden Dense layers that act on vectors. They are always searched if nothing else
            can be.
        strategy: Devices; by default all GPUs.
        measure: Returns the file size of a network in bytes, for a budget in bytes; by default the size of the float32
            `.tflite` file with its metadata.
        latency: Settings of a budget in time, such as `{"file_format": "int8", "threads": 2}`: a budget like
            `latency:0.5` or `latency:2ms` limits the time of one image on this machine, or on the one that `table` was
            measured on.
        custom_objects: Layer classes and functions of the model's own, by name, or Python files that define them; only
            needed for what isn't found in the model itself, see `load_network`.
        unsafe_load: Also accepts Lambda layers; files of the student then need `safe_mode=False` to be loaded.
        callbacks: Keras callbacks, used in each lap of the race, in the search, and in the training of the student.
        verbose: As in Keras.

    Raises:
        UserError: An argument is invalid, the model can't be read, can't be exported or is near chance on the
            validation images, the data doesn't fit the model, the budget can't be reached, or training diverges.

    Example:
        ```python
        result = tas_tf.compress(model, train, validation, budget="macs:0.5")
        result.student.save("student.keras")
        ```
    """
    deadline = None if time is None else Deadline(parse_duration(time))
    check_undecided(recipe, race, training, time)
    recipe = checked_recipe(recipe, race, search, time)
    inherit = checked_inherit(inherit, recipe)
    check_settings("race", race, RaceSettings)
    check_settings("search", search, SearchSettings)
    check_settings("training", training, TrainSettings)
    check_settings("latency", latency, LatencySettings)
    admit(custom_objects, unsafe_load=unsafe_load)
    ranking = ImportanceSettings(importance=importance)
    strategy = make_strategy() if strategy is None else strategy
    wanted = Budget.parse(budget)
    compiled, model = model, at_size_of(train, model)
    space = SearchSpace.from_graph(
        Graph.from_model(model),
        couple_trunk=couple_trunk,
        axes=axes,
        width_divisor=width_divisor,
        search_dense=search_dense,
    )
    objective = choose_objective(
        space.graph,
        task=task,
        loss=loss_of(compiled, loss),
        loss_weights=loss_weights_of(compiled, loss_weights),
        class_weight=class_weight,
    )
    check_deployable(model)
    measuring: dict[str, Any] = {
        "settings": latency_settings(latency),
        "say": print if verbose != 0 else lambda text: None,
    }
    meter = meter_of(wanted.kind, space, measure_file=measure or file_size, **measuring)
    if wanted.kind != "latency":  # timing shapes takes longer than to check data and model
        cost_and_limit(space, wanted, meter)  # rejects most budgets before any data is read
    data = open_data(
        train,
        validation,
        form=Form.of(space.graph),
        objective=objective,
        augment=augment,
        seed=seed_of(search or training),
    )
    objective, replicas = data.objective, strategy.num_replicas_in_sync  # with weights of images, if there are any
    racing, training = race_settings(race, recipe), training_settings(training, data, replicas, recipe=recipe)
    searching = search_settings(search, data, replicas)
    # Checks batch sizes.
    data.training(training.batch_size)
    if recipe == SEARCHING or racing.searched:
        data.searching(searching.batch_size, searching.split_share)
    if recipe != SEARCHING:
        data.weights_part(racing.race_share).training(training.batch_size)
    with strategy.scope():
        teacher = logits_of(model, space)
    began = monotonic()
    teacher_metrics = network_metrics(space, Shape.full(space), evaluate(teacher, data.test(), objective), data)
    if deadline is not None:
        deadline = replace(deadline, reserved=monotonic() - began)  # to score the student on the same images
    on_training = score_training(teacher, data)
    check_order(on_training.answers, data.class_names, argument="train", remedy=REMEDY)
    check_above_chance(teacher_metrics, data)
    check_alike(on_training, teacher_metrics, data)
    ranked = rank(model, space, ranking, data.calibration, objective)
    if wanted.kind == "bytes":  # files hold the names of the classes
        meter = meter_of("bytes", space, measure_file=measure or measure_file(space, data), **measuring)
    cost, _ = cost_and_limit(space, wanted, meter)
    finder = Finder(space, ranked, data, wanted, meter, training, strategy, callbacks, verbose)
    if recipe == SEARCHING:
        found = finder.by_search(searching)
    else:
        found = finder.by_race(racing, teacher, searching=searching, divisor=width_divisor, deadline=deadline)
    starts: dict[str, Callable[[], keras.Model | None]] = {
        "none": lambda: None,
        "teacher": lambda: inherited(ranked, space, found.shape),
    }
    start = starts.get(inherit, lambda: found.network)
    trained = train_network(
        space,
        found.shape,
        data,
        found.training,
        strategy=strategy,
        teacher=teacher,
        start=start(),
        callbacks=callbacks,
        verbose=verbose,
    )
    for text in found.search.warnings if found.search else ():
        warnings.warn(text, stacklevel=2)
    warn_of_chance(trained.metrics, data)
    metadata = describe_contents(space, found.shape, data.objective, data.class_names)
    if not metadata.inputs:
        metadata = replace(metadata, input_range=on_training.input_range)
    student_metrics = trained.metrics
    if wanted.kind == "latency" and meter is not None:
        spent = meter(found.shape)
        student_metrics |= {"latency_ms": reported(cost.kind, spent), "latency_share": spent / cost.full}
    student = with_sizes_of(trained.model, compiled)
    if deadline is not None:
        finder.say(f"{deadline}.")
    return Compressed(student, found.shape, teacher_metrics, student_metrics, found.race, found.search, metadata)
