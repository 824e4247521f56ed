"""Results of networks, read as TensorBoard's own tab HParams reads them."""

import numpy as np
import tensorflow as tf

from tas_tf.board.results import Result, write_result
from tests.events import read_events, read_settings


def test_settings_measurements_texts_and_images(tmp_path):
    picture = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    settings = {"lr": 0.1, "epochs": 3, "kd": True, "time": None, "factors": (0.25, 0.5), "budget": "macs:0.5"}
    result = Result(settings, {"test/accuracy": 0.75, "cost/macs": 1000}, {"run/command": "`go`"}, {"a/b": picture})
    write_result(tmp_path, result)
    found = {tag: values for tag, values in read_events(tmp_path).items() if not tag.startswith("_hparams_")}
    assert set(found) == {"test/accuracy", "cost/macs", "run/command", "a/b"}
    assert all([step for step, _ in values] == [0] for values in found.values())
    values = {tag: value for tag, ((_, value),) in found.items()}
    assert (float(values["test/accuracy"]), float(values["cost/macs"])) == (0.75, 1000.0)
    assert values["run/command"].item() == b"`go`"
    _, _, *encoded = values["a/b"].tolist()
    for image, expected in zip(encoded, picture, strict=True):
        np.testing.assert_array_equal(tf.io.decode_png(image), expected)
    assert read_settings(tmp_path) == {
        "lr": 0.1,
        "epochs": 3.0,
        "kd": True,
        "time": "",
        "factors": "0.25,0.5",
        "budget": "macs:0.5",
    }
