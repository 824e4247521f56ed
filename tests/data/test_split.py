import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tas_tf.data.split import stratified_halves, stratified_subset
from tas_tf.errors import UserError


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 5), min_size=4, max_size=200),
    share=st.sampled_from([0.25, 0.5, 0.8]),
    seed=st.integers(0, 5),
)
def test_halves_are_disjoint_cover_all_and_keep_each_class_within_one(labels, share, seed):
    labels = np.array(labels)
    first, second = stratified_halves(labels, share=share, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))
    assert len(first) == round(len(labels) * share)
    for label in np.unique(labels):
        assert abs(np.sum(labels[first] == label) - share * np.sum(labels == label)) < 1.0


def test_halves_of_even_classes_are_exact_and_depend_on_the_seed():
    labels = np.repeat(np.arange(10), 100)
    first, second = stratified_halves(labels, seed=1)
    assert np.bincount(labels[first]).tolist() == np.bincount(labels[second]).tolist() == [50] * 10
    assert np.array_equal(first, stratified_halves(labels, seed=1)[0])
    assert not np.array_equal(first, stratified_halves(labels, seed=2)[0])


def test_subset_keeps_proportions():
    labels = np.array([0] * 700 + [1] * 200 + [2] * 100)
    subset = stratified_subset(labels, count=50)
    assert len(set(subset.tolist())) == 50
    assert np.bincount(labels[subset]).tolist() == [35, 10, 5]
    assert np.array_equal(stratified_subset(labels, count=1000), np.arange(1000))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_share_out_of_range(share):
    with pytest.raises(UserError, match="`share` is out of range"):
        stratified_halves(np.zeros(10, int), share=share)


def test_part_left_empty():
    with pytest.raises(UserError, match="leaves one part empty"):
        stratified_halves(np.zeros(3, int), share=0.01)


@pytest.mark.parametrize("count", [0, 11])
def test_count_out_of_range(count):
    with pytest.raises(UserError, match="`count` is out of range"):
        stratified_subset(np.zeros(10, int), count=count)
