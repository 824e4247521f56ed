"""The checks that every network must pass, from graph to TFLite file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.comparison import Comparison
from benchmarks.networks.catalogue import Network
from benchmarks.networks.files import load_elsewhere, load_here, relative, save_student
from benchmarks.small_networks import count_macs, has_composite_layers
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.cost.frozen import frozen_macs
from tas_tf.cost.projections import projected_share
from tas_tf.decode.decode import smallest_shape
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.saved_model import serving_model
from tas_tf.deploy.tflite import export_tflite
from tas_tf.graph.ends import Packing
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import with_image_size, with_sizes_of
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.losses import loss_of
from tas_tf.objectives.objective import Objective
from tas_tf.searching.step import CostTarget, Searcher
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, copy_weights, inherit_weights
from tas_tf.supernet.build import Supernet
from tas_tf.training.optimizers import arch_adam, sgd

NUM_RANDOM, BATCH = 3, 8
#: Largest difference of a file's outputs, as a share of the largest output.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Checked:
    """Results for one network.

    Attributes:
        name: Name of the network.
        special: What is special about it.
        image: Height, width and channels of an image.
        macs: Multiply-adds of the unpruned network.
        params: Parameters of the unpruned network.
        units: Number of searched width units.
        coupled: Number of units with several convolutions.
        stages: Number of blocks of each stage.
        frozen: Layers that keep their width, with the reason.
        frozen_share: Share of the multiply-adds that no shape can reduce.
        projected: Share of projections in the multiply-adds of random shapes if each block has its own width.
        smallest: Smallest reachable share of the multiply-adds.
        step_loss: Loss of the weight step.
        students: Number of shapes whose student was built, counted, saved and loaded.
        supernet_difference: Largest difference between supernet and student, as a share of the largest output.
        keras_difference: Largest difference between a student and its file, in the same unit.
        tflite_difference: Largest difference of the TFLite file, in the same unit.
        is_rounded: Whether the network computes in fewer than 32 bits.
        elsewhere: Whether the files were loaded in a process without this project.
        seconds: Seconds of all checks.
    """

    name: str
    special: str
    image: tuple[int, ...]
    macs: int
    params: int
    units: int
    coupled: int
    stages: list[int]
    frozen: dict[str, str]
    frozen_share: float
    projected: float
    smallest: float
    step_loss: float
    students: int
    supernet_difference: float
    keras_difference: float
    tflite_difference: float
    is_rounded: bool
    elsewhere: bool
    seconds: float


def check(network: Network, *, num_random: int = NUM_RANDOM, say: Callable[[str], None] = str) -> Checked:
    """Checks one network with the default search space.

    Args:
        network: The network.
        num_random: Number of random shapes besides the smallest and the full one.
        say: Called with each step before it is taken.

    Raises:
        AssertionError: If a check fails.
    """
    started = time.monotonic()
    say("graph and costs")
    given = network.build()
    model = (
        given if network.image_size is None else with_image_size(given, (*network.image_size, given.input.shape[-1]))
    )
    graph = Graph.from_model(model)
    space, free = SearchSpace.from_graph(graph), SearchSpace.from_graph(graph, couple_trunk=False)
    macs, params = CostModel(space), CostModel(space, "params")
    assert params.full == model.count_params(), f"params: {params.full} predicted, {model.count_params()} counted"
    if not has_composite_layers(model):
        check_costs(space, Shape.full(space), model)
    images = draw_images(graph)
    smallest = smallest_shape(macs)
    shapes = [smallest, Shape.full(space), *(Shape.random(space, seed) for seed in range(num_random))]
    differences = []
    with tempfile.TemporaryDirectory() as scratch:
        comparison = Comparison(space, images)
        for number, shape in enumerate(shapes):
            say(f"student {number + 1} of {len(shapes)}")
            student = comparison.student(shape)
            check_costs(space, shape, student)
            modes = (False,) if network.random_in_training else (False, True)
            differences.append(comparison.check(shape, student, modes=modes, tolerance=network.tolerance))
            save_student(with_sizes_of(student, given), images, Path(scratch) / f"{number}.keras")
        say("steps of weights and architecture")
        objective = choose_objective(graph, task=network.task, loss=loss_of(given))
        loss = take_step(comparison.supernet, space, objective, images, draw_labels(objective))
        say("files")
        count, keras_difference = (load_here if network.own_code else load_elsewhere)(Path(scratch))
        assert count == len(shapes)
        allowed = max(TOLERANCE, network.tolerance)
        assert keras_difference < allowed, keras_difference
        outputs = np.load(Path(scratch) / f"{len(shapes) - 1}.npz")["outputs"]
        if graph.packing is None:
            file = export_tflite(student, Path(scratch) / "student.tflite")
            tflite_difference = relative(TFLiteModel(file).predict(images), outputs)
        else:
            check_unpacked(model, space)
            unpacked = copy_weights(student, build_student(space, shapes[-1]))
            tflite_difference = check_several(unpacked, graph.packing, images, Path(scratch) / "student.tflite")
        assert tflite_difference < allowed, tflite_difference
    units = space.searched_units
    return Checked(
        name=network.name,
        special=network.special,
        image=tuple(graph.input.shape[1:]),
        macs=macs.full,
        params=params.full,
        units=len(units),
        coupled=sum(bool(unit.coupled_with) for unit in units),
        stages=[stage.blocks for stage in space.stages],
        frozen=dict(space.frozen),
        frozen_share=sum(frozen_macs(space).values()) / macs.full,
        projected=projected_share(free),
        smallest=macs(smallest) / macs.full,
        step_loss=loss,
        students=len(shapes),
        supernet_difference=max(differences),
        keras_difference=keras_difference,
        tflite_difference=tflite_difference,
        is_rounded=network.tolerance > TOLERANCE,
        elsewhere=not network.own_code,
        seconds=round(time.monotonic() - started, 1),
    )


def check_costs(space: SearchSpace, shape: Shape, model: keras.Model) -> None:
    """Asserts that a model's multiply-adds and parameters are what the cost model says of a shape."""
    for kind, counted in (("macs", count_macs(model)), ("params", model.count_params())):
        predicted = CostModel(space, kind)(shape)
        assert predicted == counted, f"{kind}: {predicted} predicted, {counted} counted"


def check_unpacked(model: keras.Model, space: SearchSpace) -> None:
    """Asserts that the student of the full shape computes what a network with several inputs or outputs does."""
    shape, rng = Shape.full(space), np.random.default_rng(2)
    student = build_student(space, shape)
    inherit_weights(student, model, space, shape)
    given = keras.tree.map_structure(
        lambda tensor: rng.normal(size=(BATCH, *tensor.shape[1:])).astype("float32"), model.input
    )
    outputs, expected = student(given, training=False), model(given, training=False)
    keras.tree.assert_same_structure(outputs, expected)
    for one, other in zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True):
        assert relative(np.asarray(one), np.asarray(other)) < TOLERANCE, "the full student differs from its network"


def check_several(student: keras.Model, packing: Packing, images: np.ndarray, path: Path) -> float:
    """Converts a student with several inputs or outputs; returns the largest difference from Keras, as a share.

    Args:
        student: The student.
        packing: What its graph packs.
        images: Inputs side by side, if there are several.
        path: File to write.
    """
    given = images
    if len(packing.inputs) > 1:
        shapes = [node.shape[1:] for node in packing.inputs]
        parts = np.split(images, np.cumsum([np.prod(shape) for shape in shapes])[:-1], axis=1)
        given = {
            name: part.reshape(-1, *shape) for name, part, shape in zip(packing.input_names, parts, shapes, strict=True)
        }
    export_tflite(student, path)
    found, expected = TFLiteModel(path).predict(given), serving_model(student)(given, training=False)
    pairs = [(found[name], expected[name]) for name in found] if isinstance(found, dict) else [(found, expected)]
    return max(relative(one, np.asarray(other)) for one, other in pairs)


def draw_images(graph: Graph) -> np.ndarray:
    """Returns random images for a batch, of the type that the network takes."""
    shape, dtype = (BATCH, *graph.input.shape[1:]), graph.input.config["dtype"]
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 256, shape, dtype) if np.issubdtype(dtype, np.integer) else np.float32(rng.normal(size=shape))
    )


def draw_labels(objective: Objective) -> np.ndarray:
    """Returns random labels for a batch."""
    drawn = np.random.default_rng(1).random((BATCH, *objective.label_shape))
    if objective.label_dtype.is_integer:
        return np.int64(drawn * max(2, objective.num_outputs))
    return np.float32(drawn > 0.5)


def take_step(
    supernet: Supernet, space: SearchSpace, objective: Objective, images: np.ndarray, labels: np.ndarray
) -> float:
    """Takes a step of the weights and one of the logits; returns the loss of the weight step.

    The steps run eagerly: tracing would take longer than all other checks.
    """
    searcher = Searcher(supernet, objective, ExpectedCost(CostModel(space)), CostTarget(0.5))
    searcher.compile(sgd(0.01, l2=5e-4), arch_adam(1e-3))
    outputs = searcher.supernet(images, training=False)
    assert np.isfinite(outputs).all()
    variables = (*supernet.weight_variables, *supernet.architecture_variables)
    before = [variable.numpy() for variable in variables]
    batch = tf.constant(images), tf.constant(labels, objective.label_dtype)
    searcher.update_weights(*batch, tf.constant(0))
    searcher.update_logits(*batch, tf.constant(1))
    after = [variable.numpy() for variable in variables]
    assert all(np.isfinite(value).all() for value in after)
    unmoved = [
        variable.path
        for variable, one, other in zip(variables, before, after, strict=True)
        if one.any() and np.array_equal(one, other)
    ]
    assert not unmoved, f"variables that didn't move: {unmoved}"
    return float(searcher.get_metrics_result()["weight_loss"])
