"""Shapes without a search."""

import json

from tas_tf.cost import CostModel
from tas_tf.shape import Shape
from tests.digits import tiny_space
from trainers import baseline


def test_a_shape_at_the_budget_and_what_is_there_already(command, tmp_path, tiny_file):
    cost = CostModel(tiny_space())
    arguments = [f"--run_dir={tmp_path}/run", f"--model={tiny_file}", "--budget=macs:0.6"]
    path = tmp_path / "run/search/shape.json"
    outcome = command(baseline, *arguments, "--kind=uniform")
    assert outcome.code == 0, outcome
    shape = Shape.load(path)
    shape.check(cost.space)
    assert 0.4 * cost.full < cost.of(shape) <= 0.6 * cost.full
    assert f"{cost.of(shape):,} macs" in outcome.out.replace("\n", " ")
    before = path.read_bytes()
    assert command(baseline, *arguments, "--kind=uniform").code == 0
    assert path.read_bytes() == before
    outcome = command(baseline, *arguments, "--kind=random")
    assert outcome.code == 1
    assert "--overwrite" in outcome.err
    assert path.read_bytes() == before
    assert command(baseline, *arguments, "--kind=random", "--overwrite").code == 0
    found = Shape.load(path)
    assert found != shape
    assert 0.55 * cost.full - 1 <= cost.of(found) <= 0.6 * cost.full


def test_the_same_seed_gives_the_same_shape(command, tmp_path, tiny_file):
    shapes = []
    for number, seed in enumerate((0, 0, 1)):
        arguments = [f"--run_dir={tmp_path}/{number}", f"--model={tiny_file}", "--kind=random", f"--seed={seed}"]
        assert command(baseline, *arguments).code == 0
        shapes.append(json.loads((tmp_path / f"{number}/search/shape.json").read_text()))
    assert shapes[0] == shapes[1] != shapes[2]
