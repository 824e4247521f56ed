"""Faults of labels that `compress` finds before anything is trained."""

import numpy as np
import pytest

from tas_tf.compression.compress import compress
from tas_tf.data.task import Task
from tas_tf.errors import UserError

#: Names of the digits, which don't sort in the order of the numbers.
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


@pytest.mark.parametrize("as_texts", [True, False])
def test_outputs_in_another_order_than_the_classes(model, as_texts):
    task = Task.load("digits")  # enough images of each class to tell orders apart
    (images, labels), (others, answers) = (
        tuple(map(np.concatenate, zip(*data.as_numpy_iterator(), strict=True)))
        for data in (task.plain(task.indices), task.test())
    )
    moved = NAMES if as_texts else (np.arange(10) + 3) % 10
    with pytest.raises(UserError, match="the classes are in another order than the outputs") as refused:
        compress(model, (images, moved[labels]), (others, moved[answers]), "macs:0.5", verbose=0)
    message = str(refused.value)
    assert f"fit {', '.join(map(str, moved))}: accuracy" in message
    expected = sorted(NAMES) if as_texts else list(map(str, range(10)))
    assert message.endswith(f"Received: {', '.join(expected)}.")
