"""Results of networks, read as TensorBoard's own tab HParams reads them."""

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tas_tf.board.results import Result, write_result


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def test_settings_measurements_texts_and_images(tmp_path):
    picture = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    settings = {"lr": 0.1, "epochs": 3, "kd": True, "time": None, "factors": (0.25, 0.5), "budget": "macs:0.5"}
    result = Result(settings, {"test/accuracy": 0.75, "cost/macs": 1000}, {"run/command": "`go`"}, {"a/b": picture})
    write_result(tmp_path / "one", Result({}, {"test/old": 1.0}))
    write_result(tmp_path / "one", result)  # takes the place of the earlier one
    events = read(tmp_path / "one")
    tags = set(events.Tags()["tensors"])
    assert {"test/accuracy", "cost/macs", "run/command", "a/b"} <= tags
    assert "test/old" not in tags

    def value(tag):
        (event,) = events.Tensors(tag)
        return tf.make_ndarray(event.tensor_proto)

    assert (float(value("test/accuracy")), float(value("cost/macs"))) == (0.75, 1000.0)
    assert value("run/command").item() == b"`go`"
    _, _, *encoded = value("a/b").tolist()
    for image, expected in zip(encoded, picture, strict=True):
        np.testing.assert_array_equal(tf.io.decode_png(image), expected)

    (start,) = [
        data.session_start_info
        for tag in events.SummaryMetadata and tags
        if tag.startswith("_hparams_/session_start")
        for data in [plugin_data_pb2.HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)]
    ]
    found = {name: getattr(entry, entry.WhichOneof("kind")) for name, entry in start.hparams.items()}
    assert found == {"lr": 0.1, "epochs": 3.0, "kd": True, "time": "", "factors": "0.25,0.5", "budget": "macs:0.5"}
