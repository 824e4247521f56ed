"""Expected cost: exact where certain, by its rules of independence elsewhere, and differentiable."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.cost.projections import projections
from tas_tf.cost.terms import Term, Tiles
from tas_tf.space.shape import Shape
from tas_tf.supernet.sample import Sample
from tas_tf.zoo.loading import load_network
from tests.channel_networks import make_network
from tests.costs import tiled_cost
from tests.networks import BODIES, make
from tests.supernets import residual_network, space_of


def one_hot(space, shape):
    """A shape as probabilities `[units, candidates]` and `[stages, candidates]`."""
    indices, _, depths = Sample.one_hot(space, shape).arrays(space)
    longest = max((len(unit.candidates) for unit in space.searched_units), default=1)
    return tf.one_hot(indices[:, 0], longest) * bool(space.searched_units), tf.constant(depths)


def random_probabilities(space, seed):
    """Random distributions, padded with zeros, in the form of the gates and by name."""
    rng = np.random.default_rng(seed)
    forms, by_name = [], {}
    for choices in (space.searched_units, space.searched_stages):
        padded = np.zeros((max(1, len(choices)), max((len(c.candidates) for c in choices), default=1)), np.float32)
        for row, choice in enumerate(choices):
            chances = rng.dirichlet(np.ones(len(choice.candidates)))
            padded[row, : len(chances)] = chances
            by_name[choice.name] = dict(zip(choice.candidates, chances, strict=True))
        forms.append(padded)
    return forms, by_name


@pytest.fixture(scope="module")
def resnet56():
    return space_of(load_network("resnet56"))


def cost_of(space, kind):
    return tiled_cost(space) if kind == "latency" else CostModel(space, kind)


@pytest.mark.parametrize("kind", ["macs", "params", "bytes", "latency"])
def test_certain_choices_cost_exactly_what_the_shape_costs(resnet56, kind):
    cost = cost_of(resnet56, kind)
    expected = tf.function(ExpectedCost(cost))
    shapes = [Shape.random(resnet56, seed) for seed in range(28)] + [Shape.full(resnet56), Shape.smallest(resnet56)]
    assert sum(bool(projections(resnet56, shape)) for shape in shapes) > 25
    for shape in shapes:
        assert float(expected(*one_hot(resnet56, shape))) * cost.full == pytest.approx(cost(shape), rel=2e-6)


@functools.cache
def space_named(name):
    return space_of(make(name))


@pytest.mark.parametrize("name", [*BODIES])
@pytest.mark.parametrize("kind", ["macs", "params", "bytes", "latency"])
def test_certain_choices_of_other_structures(name, kind):
    space = space_named(name)
    cost = cost_of(space, kind)
    for seed in range(5):
        shape = Shape.random(space, seed)
        assert float(ExpectedCost(cost)(*one_hot(space, shape))) * cost.full == pytest.approx(cost(shape), rel=2e-6)


@pytest.mark.parametrize("name", ["shortcut with zeros on both sides", "shared in all blocks", "halves"])
@pytest.mark.parametrize("kind", ["macs", "params", "bytes"])
def test_certain_choices_with_shared_layers_and_zeros(name, kind):
    space = space_of(make_network(name))
    cost = cost_of(space, kind)
    for seed in range(5):
        shape = Shape.random(space, seed)
        assert float(ExpectedCost(cost)(*one_hot(space, shape))) * cost.full == pytest.approx(cost(shape), rel=2e-6)


@pytest.mark.parametrize("options", [{"axes": "width"}, {"axes": "depth"}, {"couple_trunk": True}], ids=str)
def test_certain_choices_of_restricted_spaces(options):
    space = space_of(residual_network(), **options)
    cost = CostModel(space)
    for seed in range(5):
        shape = Shape.random(space, seed)
        assert float(ExpectedCost(cost)(*one_hot(space, shape))) * cost.full == pytest.approx(cost(shape), rel=2e-6)


def pooled_shortcut_network():
    """`residual_network`'s first stage, then a block whose identity is the pooled output of that stage."""
    network = residual_network()
    x = network.get_layer("block2").output
    y = layers.ReLU()(layers.Conv2D(8, 3, padding="same", name="last_conv1")(layers.AveragePooling2D(2)(x)))
    y = layers.Conv2D(8, 3, padding="same", name="last_conv2")(y)
    x = layers.Add(name="last_add")([layers.AveragePooling2D(2)(x), y])
    x = layers.Dense(5, name="classifier")(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    return keras.Model(network.input, x)


def mean(chances):
    return sum(width * chance for width, chance in chances.items())


def differ(*pairs):
    """Probability that the widths of two independent sources differ."""
    one, other = pairs
    return 1 - sum(chance * other.get(width, 0.0) for width, chance in one.items())


class Rules:
    """The expectation of `residual_network` and `pooled_shortcut_network`, spelled out layer by layer."""

    def __init__(self, chances, kind):
        self.p, self.is_macs, self.total = chances, kind == "macs", 0.0

    def conv(self, reads, makes, area, positions, present=1.0, per_channel=4):
        macs = area * positions * reads * makes
        self.total += present * (macs if self.is_macs else area * reads * makes + per_channel * makes)

    def projection(self, one, other, positions, chance, present=1.0):
        self.total += present * chance * mean(one) * mean(other) * (positions if self.is_macs else 1)

    def block(self, name, identity, positions, present=1.0):
        inner, outer = self.p[f"{name}_conv1"], self.p[f"{name}_conv2"]
        self.conv(mean(identity), mean(inner), 9, positions, present)
        self.conv(mean(inner), mean(outer), 9, positions, present)
        self.projection(identity, outer, positions, differ(identity, outer), present)

    def first_stage(self):
        """Returns the mean width of what it hands on."""
        p = self.p
        self.conv(3, mean(p["stem"]), 9, 64)
        self.block("block1", p["stem"], 64)
        self.block("block2", p["block1_conv2"], 64, present=p["stage_1"][2])
        return p["stage_1"][1] * mean(p["block1_conv2"]) + p["stage_1"][2] * mean(p["block2_conv2"])

    def residual(self):
        handed_on = self.first_stage()
        trunk = self.p["block3_shortcut"]  # coupled with the second convolution of its block
        self.conv(handed_on, mean(self.p["block3_conv1"]), 9, 16)
        self.conv(mean(self.p["block3_conv1"]), mean(trunk), 9, 16)
        self.conv(handed_on, mean(trunk), 1, 16)
        self.block("block4", trunk, 16, present=self.p["stage_2"][2])
        last = self.p["stage_2"][1] * mean(trunk) + self.p["stage_2"][2] * mean(self.p["block4_conv2"])
        self.conv(last, 5, 1, 1, per_channel=1)
        return self.total

    def pooled_shortcut(self):
        p, handed_on = self.p, self.first_stage()
        self.conv(handed_on, mean(p["last_conv1"]), 9, 16, per_channel=1)
        self.conv(mean(p["last_conv1"]), mean(p["last_conv2"]), 9, 16, per_channel=1)
        ends = {1: p["block1_conv2"], 2: p["block2_conv2"]}
        chance = sum(p["stage_1"][depth] * differ(end, p["last_conv2"]) for depth, end in ends.items())
        self.total += chance * handed_on * mean(p["last_conv2"]) * (16 if self.is_macs else 1)
        self.conv(mean(p["last_conv2"]), 5, 1, 1, per_channel=1)
        return self.total


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize(
    ("network", "rules"),
    [(residual_network, Rules.residual), (pooled_shortcut_network, Rules.pooled_shortcut)],
    ids=["residual", "pooled_shortcut"],
)
def test_uncertain_choices_follow_the_rules_of_independence(network, rules, kind):
    space = space_of(network())
    cost = CostModel(space, kind)
    expected = ExpectedCost(cost)
    for seed in range(5):
        forms, by_name = random_probabilities(space, seed)
        wanted = rules(Rules(by_name, kind))
        assert float(expected(*map(tf.constant, forms))) * cost.full == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("network", [residual_network, pooled_shortcut_network])
def test_gradient_matches_finite_differences(network):
    space = space_of(network())
    expected = ExpectedCost(CostModel(space))
    forms = [tf.constant(form) for form in random_probabilities(space, 0)[0]]
    with tf.GradientTape() as tape:
        tape.watch(forms)
        value = expected(*forms)
    gradients = tape.gradient(value, forms)
    compiled = tf.function(expected)
    rng = np.random.default_rng(0)
    for place, (form, gradient) in enumerate(zip(forms, gradients, strict=True)):
        for _ in range(12):
            index = tuple(rng.integers(size) for size in form.shape)
            values = []
            for step in (0.05, -0.05):  # the cost is at most quadratic in each probability
                moved = form.numpy()
                moved[index] += step
                values.append(float(compiled(*[moved if other == place else f for other, f in enumerate(forms)])))
            assert gradient.numpy()[index] == pytest.approx((values[0] - values[1]) / 0.1, rel=1e-3, abs=1e-5)


def test_the_mean_of_tiles_is_the_mean_over_the_widths():
    """For channels of one unit: the mean of what the kernel computes, not what it computes for the mean width."""
    space = space_of(make("depthwise"))
    (unit,) = [one for one in space.searched_units if len(one.candidates) > 3][:1]
    segment = space.segments[unit.name][0]
    cost = CostModel(space, "latency", terms=[Term(space.graph.output, 10, makes=(segment,), make_tiles=Tiles(4, 4))])
    (widths, depths), by_name = random_probabilities(space, 3)
    found = float(ExpectedCost(cost)(tf.constant(widths), tf.constant(depths))) * cost.full
    counted = {width: 4 * -(-width // 4) for width in unit.candidates}
    assert found == pytest.approx(10 * sum(chance * counted[width] for width, chance in by_name[unit.name].items()))


def test_sums_of_several_units_have_a_gradient():
    space = space_of(make("concat"))
    cost = tiled_cost(space)
    widths, depths = (tf.Variable(rows) for rows in random_probabilities(space, 1)[0])
    with tf.GradientTape() as tape:
        expected = ExpectedCost(cost)(widths, depths)
    gradient = tape.gradient(expected, widths).numpy()
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(1) > 0).all()
