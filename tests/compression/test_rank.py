"""A user's model with its channels in order of importance."""

import numpy as np
import pytest

from tas_tf.compression.rank import rank_channels
from tas_tf.errors import UserError
from tas_tf.importance.order import channel_order
from tas_tf.space.space import SearchSpace


@pytest.mark.parametrize("importance", ["l1", "lfh"])
def test_the_model_computes_the_same_and_begins_with_its_best(model, arrays, importance):
    images = arrays[1][0]
    ranked = rank_channels(model, arrays[0], importance=importance, importance_images=200)
    np.testing.assert_allclose(ranked(images), model(images), atol=1e-5)
    kernels = [network.get_layer("stem").kernel.numpy() for network in (ranked, model)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
    if importance == "l1":
        order = channel_order("l1", model, SearchSpace.from_model(model))["stem"]
        np.testing.assert_array_equal(kernels[0], kernels[1][..., order])


def test_mistakes(model):
    assert rank_channels(model, importance="none") is model
    with pytest.raises(UserError, match="`importance`=taylor needs images"):
        rank_channels(model, importance="taylor")
    with pytest.raises(UserError, match="`importance` must be one of l1, fpgm, lfh, taylor, bn_scale, none"):
        rank_channels(model, importance="l2")
    with pytest.raises(UserError, match="`importance_images` must be at least 1"):
        rank_channels(model, importance_images=0)
