"""Networks of `keras.applications` from graph to TFLite file; benchmarks/models.py has thirteen, and more shapes."""

import pytest

from benchmarks.models import check


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small", "VGG16"])
def test_networks_of_keras_applications(name):
    checked = check(name, num_random=0)
    assert checked.students == 2
    assert checked.smallest < 0.15
    assert "it makes the outputs" in checked.frozen
