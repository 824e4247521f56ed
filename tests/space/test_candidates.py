import itertools

import pytest

from tas_tf.errors import UserError
from tas_tf.space.candidates import depth_candidates, width_candidates


def test_tenths_are_taken_in_whole_numbers():
    assert width_candidates(90) == (27, 36, 45, 54, 63, 72, 81, 90)  # int(90 * 0.7) is 62


@pytest.mark.parametrize(
    ("width", "divisor", "expected"),
    [
        (1, 1, (1,)),
        (3, 1, (1, 2, 3)),
        (4, 1, (1, 2, 3, 4)),
        (16, 4, (4, 8, 12, 16)),
        (16, 16, (16,)),
        (24, 16, (16, 24)),
        (5, 8, (5,)),
        (20, 8, (8, 16, 20)),
    ],
)
def test_widths(width, divisor, expected):
    assert width_candidates(width, divisor=divisor) == expected


def test_widths_end_in_the_full_one_and_are_multiples():
    for width, divisor in itertools.product(range(1, 70), (1, 2, 3, 8, 16, 100)):
        found = width_candidates(width, divisor=divisor)
        case = f"{width=}, {divisor=}, {found=}"
        assert found[-1] == width, case
        assert list(found) == sorted(set(found)), case
        assert all(1 <= count <= width for count in found), case
        assert all(count % divisor == 0 for count in found[:-1]), case


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 3, 4)), (6, (1, 3, 5, 6)), (9, (1, 3, 5, 7, 9))],
)
def test_depths(blocks, expected):
    assert depth_candidates(blocks) == expected


def test_a_divisor_below_one_is_refused():
    with pytest.raises(UserError, match=r"width_divisor.*at least 1.*0"):
        width_candidates(16, divisor=0)
