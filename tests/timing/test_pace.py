from tas_tf.space.shape import Shape
from tas_tf.timing.pace import measure_pace
from tas_tf.training.network import logits_of
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_network, tiny_space, tiny_task


def test_steps_and_the_rest():
    space, task = tiny_space(), tiny_task()
    settings = TrainSettings(batch_size=32)
    held_out = task.held_out(0.8, 64)
    teacher = logits_of(tiny_network(), space)
    options = {"strategy": make_strategy("one_device"), "scored_on": held_out, "teacher": teacher}
    pace = measure_pace(space, Shape.full(space), task, settings, **options)
    assert pace.teach > 0
    # Tracing takes longer than a step of a tiny network, on any machine.
    assert 0 < pace.step < pace.overhead
    assert 0 <= pace.again < pace.overhead
