"""Divisions of a network: the best of all, by an independent account of memory."""

import itertools

import keras
import pytest
from keras import layers

from tas_tf.training.calls import record_calls
from tas_tf.training.segments import Flow

SIZE = 4 * 8 * 8  # bytes of a channel


def chain(widths) -> keras.Model:
    x = images = keras.Input((8, 8, 3))
    for width in widths:
        x = layers.Conv2D(width, 3, padding="same")(x)
    return keras.Model(images, x)


def peak(widths, ends) -> float:
    """Peak of a chain of convolutions: each keeps what it reads, which for the first of a segment is passed on."""
    reads, found, passed = [3, *widths[:-1]], [], 0
    for start, end in itertools.pairwise([0, *ends]):
        for call in range(start, end):
            kept = sum(reads[start + 1 : call + 1])
            found.append(passed + kept + 2 * (reads[call] + widths[call]))
        passed += widths[end - 1]
    return max(found) * SIZE


@pytest.mark.parametrize("widths", [[8] * 9, [8, 4, 16, 2, 16, 16, 2, 8, 8], [64, 64, 32, 16, 8, 4, 2]])
def test_the_best_of_all_divisions_of_a_chain(widths):
    flow = Flow(record_calls(chain(widths)))
    ends = flow.best_ends()
    assert max(flow.backward_pass(ends)) == peak(widths, ends)
    places = range(1, len(widths))
    divisions = itertools.chain.from_iterable(itertools.combinations(places, count) for count in range(len(widths)))
    best = min(peak(widths, (*chosen, len(widths))) for chosen in divisions)
    assert max(flow.backward_pass(ends)) <= best * 1.002


def test_what_is_read_much_later_is_passed_on_once():
    """A connection from the start to the end of a network, over several segments."""
    x = first = layers.Conv2D(8, 3, padding="same")(images := keras.Input((8, 8, 3)))
    for _ in range(8):
        x = layers.Conv2D(8, 3, padding="same")(x)
    flow = Flow(record_calls(keras.Model(images, layers.Concatenate()([x, first]))))
    last = flow.backward_pass((2, 4, 10))[9]
    # Passed on: the first convolution's output, and those of the second and the fourth; then four are kept.
    assert last == SIZE * (8 * 3 + 8 * 4 + 2 * (8 + 8 + 16))
    assert max(flow.backward_pass(flow.best_ends())) < max(flow.backward_pass([10]))


def test_large_networks_are_divided_at_some_places(monkeypatch):
    monkeypatch.setattr("tas_tf.training.segments._MOST_ENDS", 4)
    flow = Flow(record_calls(chain([8, 8, 2, 8, 8, 2, 8, 8, 2, 8, 8])))
    assert set(flow.best_ends()) <= {3, 6, 9, 10, 11}
