"""Whether outputs fit the classes better in another order, told from networks that are merely bad."""

import keras
import numpy as np
import pytest

from tas_tf.data.form import Form
from tas_tf.data.streamed import open_data
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tas_tf.training.class_order import answers, better_order, check_order, given_recall, images_to_compare, num_classes


def draw(shares: np.ndarray, counts: list[int], seed: int = 0) -> np.ndarray:
    """A table of answers drawn at random, given the probability of each output for each class, `[output, class]`."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.multinomial(n, p / p.sum()) for n, p in zip(counts, shares.T, strict=True)], axis=1)


def confused(classes: int, accuracy: float, seed: int = 0) -> np.ndarray:
    """Probabilities of outputs of a network whose errors all go to one class, another one for each class."""
    shares = accuracy * np.eye(classes)
    shares[np.random.default_rng(seed).permutation(classes), np.arange(classes)] += 1 - accuracy
    return shares


def moved(order: list[int], shares: np.ndarray) -> np.ndarray:
    """The same outputs in an order in which output `i` is for class `order[i]`."""
    return shares[order]


def exchanged(classes: int, circle: list[int]) -> list[int]:
    order = list(range(classes))
    for at, number in zip(circle, circle[1:] + circle[:1], strict=True):
        order[at] = number
    return order


@pytest.mark.parametrize(
    ("classes", "each", "circle", "accuracy"),
    [
        (10, 200, [2, 3], 0.95),
        (10, 200, [5, 6, 7, 8, 9], 0.9),
        (10, 200, list(range(10)), 0.7),
        (60, 33, [7, 50], 0.9),
        (100, 20, [0, 40, 80], 0.9),
        (100, 20, list(range(100)), 0.6),
        (250, 20, [17, 200], 0.95),
        (1000, 5, list(range(1000)), 0.95),
        (2, 100, [0, 1], 0.9),
    ],
)
def test_classes_that_change_places(classes, each, circle, accuracy):
    order = exchanged(classes, circle)
    spread = accuracy * np.eye(classes) + (1 - accuracy) / classes
    table = draw(moved(order, spread), [each] * classes)
    better = better_order(table)
    assert better.classes == order
    right = sum(table[output, number] for output, number in enumerate(order))
    assert better.accuracy == pytest.approx(right / table.sum())
    assert better.recall == pytest.approx(better.accuracy)  # all classes have as many images
    assert better.given == pytest.approx(table.trace() / table.sum())


def test_rare_classes_count_as_much_as_frequent_ones():
    order = exchanged(5, [1, 3])
    counts = [5000, 30, 60, 40, 100]
    table = draw(moved(order, 0.9 * np.eye(5) + 0.02), counts)
    assert better_order(table).classes == order
    shares = [table[output, number] / counts[number] for output, number in enumerate(order)]
    assert better_order(table).recall == pytest.approx(np.mean(shares))


def test_a_class_without_images_goes_along():
    order = exchanged(10, [5, 6, 7, 8, 9])
    assert better_order(draw(moved(order, np.eye(10)), [50] * 7 + [0] + [50] * 2)).classes == order


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("accuracy", [0.3, 0.45, 0.55, 0.6])
@pytest.mark.parametrize("classes", [3, 10, 100])
def test_systematic_confusions_are_no_order(classes, accuracy, seed):
    """Even if most images of each class go to one other class, which is near or far."""
    shares = confused(classes, accuracy, seed)
    if accuracy < 0.5:  # several classes are taken for the same ones
        shares = accuracy * np.eye(classes)
        taken = np.random.default_rng(seed).integers(0, max(1, classes // 3), classes)
        shares[taken, np.arange(classes)] += 1 - accuracy
    assert better_order(draw(shares, [max(20, 2000 // classes)] * classes, seed)) is None


@pytest.mark.parametrize("said", range(10))
def test_constant_answers_to_imbalanced_data(said):
    shares = np.full([10, 10], 1e-3)
    shares[said] = 1
    assert better_order(draw(shares, [40] * 3 + [1400] + [40] * 6)) is None


def test_random_answers_hardly_ever_look_like_an_order():
    """Few outputs answer to all classes, as those of untrained networks and under wrong preprocessing do."""
    rng, found = np.random.default_rng(0), 0
    for seed in range(300):
        usual = rng.dirichlet(np.full(10, rng.choice([0.05, 0.3, 1.0])))
        shares = np.stack([rng.dirichlet(3 * usual + 1e-3) for _ in range(10)], axis=1)
        found += better_order(draw(shares, [200] * 10, seed)) is not None
    assert found == 0


def test_a_pair_with_few_images_or_as_many_on_either_output_is_left_alone():
    few = np.diag([3] * 100)
    few[[4, 7]] = few[[7, 4]]
    assert better_order(few) is None
    alike = np.diag([100] * 10)
    alike[np.ix_([4, 7], [4, 7])] = [[42, 58], [58, 42]]
    assert better_order(alike) is None


def test_recall_in_the_given_order():
    assert given_recall(np.array([[90, 0, 0], [10, 1, 0], [0, 3, 0]])) == pytest.approx((0.9 + 0.25) / 2)


def test_what_has_classes():
    assert num_classes(Classification(7)) == 7
    assert num_classes(Binary(1)) == 2
    assert num_classes(Multilabel(3)) is None
    assert num_classes(Classification(7, (4, 4))) is None


def decide(count: int, *, flipped: bool = False) -> tuple[keras.Model, tuple[np.ndarray, np.ndarray]]:
    """Images that are dark or bright, and a network that tells them apart, perhaps the wrong way round."""
    labels = np.arange(count) % 2
    images = np.random.default_rng(0).normal(2.0 * labels - 1, 0.1, (4, 4, 1, count)).transpose(3, 0, 1, 2)
    photo = keras.Input((4, 4, 1))
    model = keras.Model(photo, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(photo)))
    model.layers[-1].set_weights([np.array([[-1.0 if flipped else 1.0]]), np.zeros(1)])
    return model, (images.astype(np.float32), labels)


@pytest.mark.parametrize("flipped", [True, False])
def test_a_decision_the_other_way_round(flipped):
    model, train = decide(130, flipped=flipped)
    data = open_data(train, None, form=Form.of(Graph.from_model(model)), objective=Binary(1))
    table = answers(model, data)
    assert table.sum() == 130  # each image once
    told = {"argument": "train", "remedy": "Exchange them."}
    if not flipped:
        return check_order(table, ["yes"], **told)
    with pytest.raises(
        UserError, match=r"two classes are the other way round.* 0 and 1 fit 1 and 0: accuracy 1.000 .* 0.000. Ex"
    ):
        check_order(table, ["yes"], **told)


def test_more_images_for_more_classes():
    class Data:
        def __init__(self, classes, num_train):
            self.objective, self.num_train = Classification(classes), num_train

    for classes, have, expected in [(10, 50_000, 2000), (150, 50_000, 3000), (1000, 50_000, 5000), (10, 130, 130)]:
        asked = images_to_compare(Data(classes, have))
        assert asked["batch_size"] <= 100
        assert expected - asked["batches"] < asked["batch_size"] * asked["batches"] <= expected


def test_many_classes_are_told_by_what_moved():
    order = exchanged(60, [3, 50])
    with pytest.raises(UserError) as refused:
        check_order(np.diag([40] * 60)[order], [f"c{i}" for i in range(60)], argument="train", remedy="Do.")
    assert "Outputs 3, 50 fit c50, c3: accuracy 1.000" in str(refused.value)
    assert str(refused.value).endswith("Received: c3, c50 at these places.")
