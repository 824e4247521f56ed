"""The search alone."""

import pytest

from tas_tf.compression.search import search
from tas_tf.cost.cost_model import CostModel
from tas_tf.deploy.errors import ExportError
from tas_tf.errors import UserError
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.digits import tiny_search


def test_a_shape_within_the_budget(model, arrays):
    space = SearchSpace.from_model(model, axes="width")
    found = search(model, arrays[0], budget="params:0.6", space=space, settings=tiny_search(), verbose=0)
    found.shape.check(space)
    assert found.metrics["shape_params"] <= 0.6 * CostModel(space, "params").full
    assert found.shape.depths == {"stage_1": 2}


def test_what_can_not_become_files_is_refused_before_data_is_read(model, monkeypatch):
    def refuse(network):
        assert network is model
        raise ExportError("no files")

    monkeypatch.setattr("tas_tf.compression.search.check_deployable", refuse)
    with pytest.raises(UserError, match="no files"):
        search(model, None)


def test_bad_arguments(model, arrays, monkeypatch):
    monkeypatch.setattr("tas_tf.compression.search.check_deployable", lambda network: None)  # to save time
    space = SearchSpace.from_model(model)
    with pytest.raises(UserError, match="`space` can't be combined with axes"):
        search(model, arrays[0], space=space, axes="width")
    other = SearchSpace.from_model(load_network("resnet8", image_size=8, channels=1))
    with pytest.raises(UserError, match=r"`space` must be made from `model`, tiny\. Received the space of"):
        search(model, arrays[0], space=other)
    with pytest.raises(UserError, match="below what"):
        search(model, arrays[0], "macs:0.001")
    with pytest.raises(UserError, match="`train` must have images of 8x8x1"):
        search(model, (arrays[0][0][:, :4], arrays[0][1]))
