"""Settings are checked when they are set."""

import dataclasses

import pytest

from tas_tf.errors import UserError
from tas_tf.settings import Seeded, Settings, describe_settings, other_default, recorded, require, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base(Seeded):
    """Some settings."""

    rate: float = setting(0.5, "A rate.", above=0, below=1)
    count: int | None = setting(None, "A count.", at_least=1)
    pair: tuple[float, float] = setting((0.1, 0.2), "Two shares.", at_least=0, at_most=1)
    kind: str = setting("a", "One of two.", choices=("a", "b"))
    names: tuple[str, ...] = setting((), "Any of two.", choices=("x", "y"))
    place: str | None = setting(None, "A place.", recorded=False)
    flag: bool = setting(False, "A switch.", recorded=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derived(Base):
    """The same under another default."""

    rate: float = other_default(Base, "rate", 0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.0}, "`rate` must be above 0 and below 1. Received: 0.0."),
        ({"rate": float("nan")}, "`rate` must be above 0 and below 1. Received: nan."),
        ({"rate": "high"}, "`rate` must be a number. Received: 'high'."),
        ({"count": 0}, "`count` must be at least 1. Received: 0."),
        ({"count": 1.5}, "`count` must be a whole number. Received: 1.5."),
        ({"count": True}, "`count` must be a whole number. Received: True."),
        ({"pair": (0.1, 2.0)}, "`pair` must be from 0 to 1. Received: 0.1, 2.0."),
        ({"pair": (0.1,)}, "`pair` must be 2 values. Received: 0.1."),
        ({"kind": "c"}, "`kind` must be one of a, b. Received: 'c'."),
        ({"names": ("x", "z")}, "`names` must name some of x, y. Received: 'z'."),
        ({"names": "x"}, "`names` must be a sequence. Received: 'x'."),
        ({"flag": "no"}, "`flag` must be True or False. Received: 'no'."),
        ({"place": 3}, "`place` must be a text. Received: 3."),
        ({"seed": -1}, "`seed` must be from 0 to 4294967295. Received: -1."),
    ],
)
def test_what_is_off_is_named(changes, message):
    with pytest.raises(UserError) as caught:
        Derived(**changes)
    assert str(caught.value) == message


def test_a_default_changes_and_the_description_stays():
    assert (Base().rate, Derived().rate) == (0.5, 0.25)
    assert describe_settings(Derived)["rate"].setting is describe_settings(Base)["rate"].setting
    with pytest.raises(UserError, match="`rate`"):
        dataclasses.replace(Derived(), rate=1.0)


def test_what_results_depend_on():
    assert recorded(Base(place="here"), without=["pair", "seed"]) == {
        "rate": 0.5,
        "count": None,
        "kind": "a",
        "names": (),
    }


def test_what_is_needed_says_what_it_is():
    assert require(Base(place="here"), "place") == "here"
    with pytest.raises(UserError, match="`place` is needed: A place"):
        require(Base(), "place")
    assert issubclass(Base, Settings)
