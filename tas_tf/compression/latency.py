"""The latency of a network's shapes as a cost model, for users' own code."""

from __future__ import annotations

from collections.abc import Callable

from tas_tf.compression.defaults import Changes, check_settings, latency_settings
from tas_tf.cost.cost_model import CostModel
from tas_tf.deploy.tflite import file_size
from tas_tf.latency.meter import meter_of
from tas_tf.latency.settings import LatencySettings
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import make_cost


def latency_cost(
    space: SearchSpace,
    latency: LatencySettings | Changes | None = None,
    *,
    say: Callable[[str], None] = print,
) -> CostModel:
    """Times shapes of a network on this machine, and returns the cost model that predicts the latency of all.

    It takes one to several minutes; later calls use what is kept in `~/.cache/tas_tf/latency`. A cost is in
    femtoseconds, as are the limits of budgets in time.

    Args:
        space: Search space of the network.
        latency: What is timed: settings, or some of them by name. With `table`, nothing is timed; costs are those on
            the device of the table.
        say: Called with lines of text on what is timed, and on how good predictions are.

    Raises:
        UserError: A setting is invalid, the table is one of another network, or the machine is too busy to tell.

    Example:
        >>> import tas_tf
        >>> space = tas_tf.SearchSpace.from_model(tas_tf.load_network("resnet20"))
        >>> cost = tas_tf.latency_cost(space, {"file_format": "int8"})  # doctest: +SKIP
        >>> share = cost(tas_tf.Shape.smallest(space)) / cost.full  # doctest: +SKIP
    """
    check_settings("latency", latency, LatencySettings)
    return make_cost(
        space, "latency", meter_of("latency", space, latency_settings(latency), measure_file=file_size, say=say)
    )
