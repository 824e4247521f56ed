"""What a page says of the answers of teacher and student."""

import base64

import numpy as np
import pytest

from tas_tf.report import answers
from tests.report.pieces import make_behaviour


@pytest.fixture(scope="module")
def behaviour():
    return make_behaviour()


def test_parts_are_all_images(behaviour):
    parts = answers.parts_of(behaviour)
    assert [part.key for part in parts] == ["both", "teacher", "student", "neither"]
    assert sum(part.images for part in parts) == behaviour.images
    assert sum(part.share for part in parts) == pytest.approx(1)


def test_matrices(behaviour):
    found = answers.matrices(behaviour)
    for name in ("teacher", "student"):
        matrix = getattr(behaviour, name).matrix(3)
        assert [[cell.images for cell in cells] for _, cells in found[name]] == matrix.tolist()
        shares = np.array([[cell.share for cell in cells] for _, cells in found[name]])
        np.testing.assert_allclose(shares.sum(1), 1)
    many = make_behaviour(tuple(map(str, range(21))))
    assert answers.matrices(many) == {}
    assert len(answers.confusions(many)) == 40


def test_confusions_that_the_student_adds_come_first(behaviour):
    found = answers.confusions(behaviour)
    changes = [one.student - one.teacher for one in found]
    assert changes == sorted(changes, reverse=True)
    assert found[0].change == f"+{changes[0]}"
    wrong = [behaviour.images - one.matrix(3).trace() for one in (behaviour.teacher, behaviour.student)]
    assert [sum(one.teacher for one in found), sum(one.student for one in found)] == wrong


def test_examples_carry_their_images(behaviour):
    first, *_ = found = answers.examples(behaviour)
    assert len(found) == 3
    assert base64.b64decode(first.image.removeprefix("data:image/png;base64,")) == behaviour.pngs[0]
    assert (first.label, first.predicted, first.teacher, first.student) == ("cat", "dog", "90\xa0%", "95\xa0%")
    assert first.alt == "Test image 0 of class cat, which the student takes for dog."


def test_sureness_is_the_mean_over_images(behaviour):
    teacher, student = answers.sureness(behaviour)
    assert (teacher.name, student.name) == ("teacher", "student")
    accuracy = behaviour.teacher.matrix(3).trace() / behaviour.images
    assert teacher.accuracy == f"{100 * accuracy:.2f} %"
    assert student.error == f"{100 * behaviour.student.calibration.error:.2f} %"


def test_ranges_without_images_have_no_row(behaviour):
    rows = answers.calibration_rows(behaviour)
    filled = [
        one.images or other.images
        for one, other in zip(behaviour.teacher.calibration.bins, behaviour.student.calibration.bins, strict=True)
    ]
    assert len(rows) == np.count_nonzero(filled) < len(filled)
    assert rows[-1][0] == "93 to 100 %"
    assert all(len(cells) == 6 for _, cells in rows)
