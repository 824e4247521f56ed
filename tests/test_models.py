"""Networks of `keras.applications` from graph to TFLite file; benchmarks/models.py has thirteen, and more shapes."""

import pytest

from benchmarks.models import check


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small", "ConvNeXtTiny"])
def test_networks_of_keras_applications(name):
    checked = check(name, num_random=1)
    assert checked.students == 3
    assert checked.smallest < 0.1
    assert checked.frozen == {"it makes the class scores": 1}
