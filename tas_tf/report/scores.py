"""How the scores of each kind of network are called and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tas_tf.report.formatting import MISSING, format_share


@dataclass(frozen=True)
class Score:
    """A score of networks.

    Attributes:
        name: Name of the score in metrics, such as `accuracy`.
        title: Name of the score in running text.
        is_error: Whether the score is an error in the unit of the labels, of which less is better; others are shares,
            of which more is better.
    """

    name: str
    title: str
    is_error: bool = False

    @property
    def note(self) -> str:
        """The title, and the direction of an error."""
        return f"{self.title} (less is better)" if self.is_error else self.title

    @property
    def axis(self) -> str:
        """Title of an axis, with the unit."""
        return self.note if self.is_error else f"{self.title}, percent"

    def scaled(self, value: float) -> float:
        """The value on an axis: percent, or the error itself.

        >>> SCORES["accuracy"].scaled(0.5), SCORES["mae"].scaled(0.5)
        (50.0, 0.5)
        """
        return value if self.is_error else 100 * value

    def written(self, value: float | None) -> str:
        """The value in a table.

        >>> SCORES["accuracy"].written(0.97222), SCORES["mae"].written(12.3456), SCORES["mae"].written(None)
        ('97.22 %', '12.35', '-')
        """
        if value is None or not self.is_error:
            return format_share(value)
        return f"{value:.4g}"

    def changed(self, before: float | None, after: float | None) -> tuple[str, str]:
        """By how much a score changes, and what the number is.

        >>> SCORES["mean_iou"].changed(0.8, 0.75), SCORES["mae"].changed(2.0, 2.5)
        (('-5.00', 'points of test mean IoU'), ('+0.5', 'change of test mean absolute error (less is better)'))
        """
        what = f"change of test {self.note}" if self.is_error else f"points of test {self.title}"
        if before is None or after is None:
            return MISSING, what
        return (f"{after - before:+.4g}" if self.is_error else f"{100 * (after - before):+.2f}"), what


#: All scores by name.
SCORES = {
    score.name: score
    for score in (
        Score("accuracy", "accuracy"),
        Score("balanced_accuracy", "balanced accuracy (mean over classes)"),
        Score("roc_auc", "area under the ROC curve"),
        Score("mean_average_precision", "mean average precision"),
        Score("mean_iou", "mean IoU"),
        Score("mean_score", "mean score of the outputs"),
        Score("mae", "mean absolute error", is_error=True),
        Score("rmse", "root mean squared error", is_error=True),
        Score("r2", "share of variance explained"),
    )
}


def score_of(metrics: Mapping[str, Any]) -> Score:
    """The score that counts for a network; the accuracy in metrics of earlier versions, which don't name it.

    >>> score_of({"metric": "mae", "mae": 0.5}).title, score_of({"accuracy": 0.9}).title
    ('mean absolute error', 'accuracy')
    """
    return SCORES[metrics.get("metric") or "accuracy"]


def value_of(metrics: Mapping[str, Any], score: Score) -> float | None:
    """A score of a network or of a file, whose metrics hold the one that counts as `score`.

    >>> value_of({"metric": "mae", "score": 0.5, "accuracy": None}, SCORES["mae"]), value_of({}, SCORES["mae"])
    (0.5, None)
    """
    if metrics.get("metric") == score.name and "score" in metrics:
        return metrics["score"]
    return metrics.get(score.name)


def scores_by_output(metrics: Mapping[str, Any]) -> list[tuple[str, str, Score]]:
    """The scores of each of several outputs among a network's metrics: key, name of the output, score.

    >>> metrics = {"metric": "mean_score", "mean_score": 0.5, "age_mae": 2.0, "train_mae": 1.0}
    >>> [found[:2] for found in scores_by_output(metrics)]
    [('age_mae', 'age')]
    """
    if metrics.get("metric") != "mean_score":
        return []
    names = sorted(SCORES, key=len, reverse=True)  # a balanced accuracy ends like an accuracy
    found = []
    for key in metrics:
        name = next((name for name in names if key.endswith(f"_{name}")), None)
        if name is not None and key not in SCORES and not key.startswith("train_"):
            found.append((key, key.removesuffix(f"_{name}"), SCORES[name]))
    return found


def told(metrics: Mapping[str, Any]) -> str:
    """The score that counts for a network, in words.

    >>> told({"accuracy": 0.91234}), told({"metric": "mae", "mae": 3.25})
    ('accuracy 0.9123', 'mean absolute error 3.25')
    """
    score = score_of(metrics)
    value = metrics[score.name]
    return f"{score.title} {value:.4g}" if score.is_error else f"{score.title} {value:.4f}"
