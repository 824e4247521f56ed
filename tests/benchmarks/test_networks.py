"""The networks that the benchmark checks from graph to TFLite file; a few pass all checks here, too."""

import dataclasses

import pytest

from benchmarks.networks import hub
from benchmarks.networks.applications import APPLICATIONS
from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.checks import Checked, check
from benchmarks.networks.page import markdown
from benchmarks.networks.zoo import ZOO
from tas_tf.graph.image_size import with_image_size
from tas_tf.space.space import SearchSpace
from tests.networks import count_macs

CHECKED = Checked(
    name="Net",
    special="nothing",
    image=(8, 8, 3),
    macs=1000,
    params=100,
    units=2,
    coupled=1,
    stages=[2, 3],
    frozen={"end": "it makes the outputs", "conv": "its channels reach `dot` (Dot), which needs them all"},
    frozen_share=0.25,
    projected=0.1,
    smallest=0.3,
    step_loss=2.5,
    students=5,
    supernet_difference=1e-6,
    keras_difference=0.0,
    tflite_difference=2e-6,
    is_rounded=False,
    elsewhere=True,
    seconds=3.0,
)


def test_there_are_many_networks_with_names_of_their_own():
    slugs = [network.slug for catalogue in (APPLICATIONS, hub.HUB, ZOO) for network in catalogue.values()]
    assert len(slugs) == len(set(slugs))
    assert not any("," in name for catalogue in (APPLICATIONS, hub.HUB, ZOO) for name in catalogue)  # see `--only`
    assert len(APPLICATIONS) == 13
    assert len(ZOO) >= 80


def test_a_second_network_of_a_name_is_refused():
    catalogue = Catalogue()
    catalogue.add("Net", "")(lambda images: images)
    with pytest.raises(ValueError, match="called 'net'"):
        catalogue.add("net", "")(lambda images: images)


@pytest.mark.slow
@pytest.mark.usefixtures("own_layers")
@pytest.mark.parametrize("name", list(ZOO))
def test_networks_build_and_can_be_searched(name):
    network = ZOO[name]
    model = network.build()
    if network.image_size is not None:
        model = with_image_size(model, (*network.image_size, model.input.shape[-1]))
    space = SearchSpace.from_model(model)
    assert space.searched_units or space.searched_stages
    assert 1e5 < count_macs(model) < 6e7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Image and table"])
def test_networks_pass_all_checks(name):
    checked = check(ZOO[name], num_random=1)
    assert (checked.students, checked.elsewhere) == (3, True)
    assert 0 < checked.smallest < 0.5
    assert checked.supernet_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small", "VGG16"])
def test_networks_of_keras_applications(name):
    checked = check(APPLICATIONS[name], num_random=0)
    assert checked.students == 2
    assert checked.smallest < 0.15
    assert "it makes the outputs" in checked.frozen.values()


def test_a_wrong_cost_fails(monkeypatch):
    monkeypatch.setattr("benchmarks.networks.checks.count_macs", lambda model: 1)
    with pytest.raises(AssertionError, match=r"macs: .* predicted, 1 counted"):
        check(ZOO["Maxout"])


def test_the_page_lists_each_network_once():
    own = dataclasses.replace(CHECKED, name="Other", elsewhere=False)
    page = markdown([CHECKED], [own])
    assert "2 networks were newly built" in page
    assert "| Net | 8 | 1,000 | 100 | 2 | 1 | 2, 3 | 0.300 | 10% |" in page
    assert "| Other * | nothing | 8x8x3 | 1,000 | 100 | 2 | 2, 3 | 25% | 0.300 | 1.0e-06 | 2.0e-06 |" in page
    assert "| Other | `conv` | its channels reach a Dot layer, which needs them all |" in page
    assert page.count("it makes the outputs") == 1
