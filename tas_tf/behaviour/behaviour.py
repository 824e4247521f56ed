"""The comparison of a teacher and a student on the test set as a whole, and its files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from tas_tf.behaviour.counts import Agreement, Answers
from tas_tf.behaviour.examples import Mistake
from tas_tf.files import write_json

METRICS_FILE, EXAMPLES = "metrics.json", "examples"
#: Kinds of networks whose outputs exclude each other.
_EXCLUSIVE = ("classification", "binary")


@dataclass(frozen=True)
class Behaviour:
    """How teacher and student behave on the test images.

    Attributes:
        classes: Names of the classes 0, 1, ...
        images: Number of test images.
        teacher: The teacher's answers.
        student: The student's answers.
        agreement: Where they agree.
        mistakes: Images that the teacher recognises and the student doesn't, those that the student is surest of first.
        pngs: A PNG of each of these images, in order; empty if they aren't grey or colour images.

    Example:
        >>> from tas_tf.behaviour.counts import Calibration
        >>> alike = Answers({(0, 0): 1, (1, 1): 2}, Calibration(()))
        >>> found = Behaviour(("cat", "dog"), 3, alike, alike, Agreement(3, 0, 0, 0, 3))
        >>> found.student.matrix(len(found.classes)).tolist()
        [[1, 0], [0, 2]]
    """

    classes: tuple[str, ...]
    images: int
    teacher: Answers
    student: Answers
    agreement: Agreement
    mistakes: tuple[Mistake, ...] = ()
    pngs: tuple[bytes, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data without the images; `mistakes` name their files."""
        files: list[str | None] = [f"{EXAMPLES}/{number:02}.png" for number in range(len(self.pngs))]
        files += [None] * (len(self.mistakes) - len(files))
        return {
            "images": self.images,
            "classes": list(self.classes),
            "agreement": asdict(self.agreement),
            "teacher": self.teacher.to_json(),
            "student": self.student.to_json(),
            "mistakes": [{**asdict(one), "file": file} for one, file in zip(self.mistakes, files, strict=True)],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], pngs: Sequence[bytes] = ()) -> Self:
        """Reads what `to_json` returns."""
        mistakes = [{key: value for key, value in one.items() if key != "file"} for one in content["mistakes"]]
        return cls(
            classes=tuple(content["classes"]),
            images=content["images"],
            teacher=Answers.from_json(content["teacher"]),
            student=Answers.from_json(content["student"]),
            agreement=Agreement(**content["agreement"]),
            mistakes=tuple(Mistake(**one) for one in mistakes),
            pngs=tuple(pngs),
        )

    def write(self, folder: str | Path) -> None:
        """Writes `metrics.json` and the PNGs in `examples/`.

        Args:
            folder: A folder without them.
        """
        examples = Path(folder) / EXAMPLES
        examples.mkdir()
        for number, content in enumerate(self.pngs):
            (examples / f"{number:02}.png").write_bytes(content)
        write_json(Path(folder) / METRICS_FILE, self.to_json())


def has_exclusive_classes(metrics: Mapping[str, Any]) -> bool:
    """Whether each image has one class of a network's only output.

    Args:
        metrics: `metrics.json` of the network; those of earlier versions don't name the task, which is this one.

    Example:
        >>> has_exclusive_classes({"task": "regression", "metric": "mae"}), has_exclusive_classes({"accuracy": 0.9})
        (False, True)
    """
    return metrics.get("task", "classification") in _EXCLUSIVE and metrics.get("metric", "accuracy") == "accuracy"
