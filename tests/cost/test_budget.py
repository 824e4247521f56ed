import pytest

from tas_tf.cost.budget import Budget
from tas_tf.errors import UserError


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("macs:0.5", 500_000),
        ("macs:1", 1_000_000),
        ("macs:1.0", 1_000_000),
        ("macs:.25", 250_000),
        ("params:0.3333333", 333_333),
        ("macs:400k", 400_000),
        ("macs:0.4M", 400_000),
        ("macs:0.0004G", 400_000),
        ("macs:0.57M", 570_000),
        ("macs:400000", 400_000),
        ("macs:2", 2),
        ("macs:50%", 500_000),
        ("Params:33.3%", 333_000),
        ("macs:100%", 1_000_000),
        ("MACs:0.5", 500_000),
        (" macs:0.29 ", 290_000),  # in binary a little less
    ],
)
def test_limits(text, limit):
    assert Budget.parse(text).limit(1_000_000) == limit


@pytest.mark.parametrize(
    "text",
    ["", "macs", "0.5", "macs:", "macs:half", "macs:-0.5", "macs:0", "macs:0M", "flops:0.5", "macs:40T", "macs:40m"]
    + [
        "macs:150%",
        "macs:0%",
        "macs:50k%",
        "macs:1e6",
        "macs:0.5:0.6",
        "macs: 0.5",
        "macs:nan",
        "macs:inf",
        "macs:1.5",
        "macs:0,5",
    ]
    + ["macs:0.0001k", 0.5, None],
)
def test_what_is_no_budget(text):
    with pytest.raises(UserError, match=r"`budget` must be .*Received") as error:
        Budget.parse(text)
    assert repr(text) in str(error.value)


def test_a_budget_reads_as_it_was_written():
    for text in (
        "macs:0.5",
        "params:0.25",
        "macs:40M",
        "params:250k",
        "macs:0.00005",
        "bytes:1.0",
        "bytes:3k",
        "macs:33.3%",
        "MACs:.5%",
    ):
        assert Budget.parse(str(Budget.parse(text))) == Budget.parse(text)
