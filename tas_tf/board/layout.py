"""The charts of TensorBoard's tab Custom Scalars."""

from __future__ import annotations

import tensorflow as tf
from tensorboard.plugins.custom_scalar import summary
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

#: Charts by category: a title, and regular expressions of the tags that it shows.
CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "Networks": {
        "score: teacher, held out in the search, student": (
            r"score/(?!weight_|arch_).*",
            r"race/held_out_(?!loss$).*",
        ),
        "loss: teacher, student": (r"loss/loss",),
    },
    "Search": {
        "cost against the budget": (r"cost_in_.*/.*",),
        "score of the supernet": (r"score/(weight|arch)_.*",),
        "temperature and entropies": (r"search/(temperature|width_entropy|depth_entropy)",),
    },
    "Race": {"loss on held-out images, by round": (r"race/held_out_loss",)},
}


def write_layout() -> None:
    """Writes the layout to the default writer. TensorBoard merges equal layouts of several runs."""
    categories = [
        Category(
            title=title,
            chart=[Chart(title=name, multiline=MultilineChartContent(tag=tags)) for name, tags in charts.items()],
        )
        for title, charts in CHARTS.items()
    ]
    layout = summary.pb(Layout(category=categories))
    tf.summary.experimental.write_raw_pb(layout.SerializeToString(), step=0)
