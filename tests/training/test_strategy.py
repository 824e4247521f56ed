import pytest
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.training.strategy import check_batch_size, make_strategy


def test_names():
    assert make_strategy("one_device").num_replicas_in_sync == 1
    mirrored = make_strategy("mirrored")
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    assert mirrored.num_replicas_in_sync == len(tf.config.list_logical_devices("CPU")) == 2
    with pytest.raises(UserError, match=r"`strategy` is unknown.*multi_worker. Received: 'tpu'"):
        make_strategy("tpu")


@pytest.mark.parametrize(("num_gpus", "replicas"), [(0, 1), (1, 1), (2, 2)])
def test_auto_counts_gpus(monkeypatch, num_gpus, replicas):
    cpus = tf.config.list_logical_devices("CPU")
    # CPU devices stand in for GPUs.
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: cpus[:num_gpus])
    assert make_strategy("auto").num_replicas_in_sync == replicas


def test_batch_size(two_replicas):
    check_batch_size(two_replicas, 8)
    check_batch_size(make_strategy("one_device"), 7)
    check_batch_size(make_strategy("one_device"), None)
    with pytest.raises(UserError, match=r"Received: 7\. Use 6 or 8"):
        check_batch_size(two_replicas, 7)
    with pytest.raises(UserError, match=r"Received: 1\. Use 2,"):
        check_batch_size(two_replicas, 1)
    with pytest.raises(UserError, match="must be positive"):
        check_batch_size(two_replicas, 0)
    with pytest.raises(UserError, match="drop_remainder"):
        check_batch_size(two_replicas, None)
