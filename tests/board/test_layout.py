import re

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from tas_tf.board.layout import CHARTS
from tas_tf.board.scalars import EpochScalars, scalar_tag


def test_the_first_event_file_of_a_training_has_the_layout(tmp_path):
    scalars = EpochScalars(tmp_path)
    for epoch in range(2):
        scalars.write(epoch, {"loss": 1.0, "val_accuracy": 0.5}, [0.1])
    scalars.close()
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"tensors": 0})
    events.Reload()
    (event,) = events.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    found = {one.title: {chart.title: tuple(chart.multiline.tag) for chart in one.chart} for one in layout.category}
    assert found == CHARTS
    assert len(events.Tensors("loss/loss")) == 2


def test_charts_show_the_tags_that_steps_write():
    """TensorBoard matches from the start of a tag, as `re.match` does."""

    def shown(chart: str, tag: str) -> bool:
        patterns = next(charts[chart] for charts in CHARTS.values() if chart in charts)
        return any(re.match(pattern, tag) for pattern in patterns)

    networks, supernet = "score: teacher, held out in the search, student", "score of the supernet"
    for name in ("accuracy", "mae", "mean_iou"):
        assert shown(networks, scalar_tag(name))
        assert shown(networks, f"race/held_out_{name}")
        for part in ("weight", "arch"):
            assert shown(supernet, scalar_tag(f"{part}_{name}"))
            assert not shown(networks, scalar_tag(f"{part}_{name}"))
    assert not shown(networks, "race/held_out_loss")
    assert shown("loss on held-out images, by round", "race/held_out_loss")
    assert shown("loss: teacher, student", scalar_tag("loss"))
    assert not shown("loss: teacher, student", scalar_tag("arch_loss"))
    for name in ("temperature", "width_entropy", "depth_entropy"):
        assert shown("temperature and entropies", scalar_tag(name))
    for name in ("budget", "expected", "argmax", "decoded"):
        assert shown("cost against the budget", f"cost_in_latency/{name}")
