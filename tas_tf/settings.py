"""Settings: each is a dataclass field with its default, bounds and help, and is checked when it is set."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Sequence
from typing import Any

from tas_tf.errors import UserError

_KEY = "setting"
#: A value that no setting has.
_NEVER = object()
_KINDS = {bool: "True or False", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Help and bounds of a setting. Name, type and default come from the field.

    Attributes:
        help: What the setting does, in a sentence or two.
        at_least: Smallest value allowed.
        above: Lower bound; values must be greater.
        at_most: Largest value allowed.
        below: Upper bound; values must be smaller.
        choices: The values allowed, if the setting is a choice.
        recorded: Whether results depend on the setting, so that changing it makes them stale.
        before: Value that results have which were made before there was the setting. It isn't recorded, so that they
            stay valid.
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | None = None
    recorded: bool = True
    before: Any = _NEVER

    @property
    def bounds(self) -> str:
        """The bounds in words, such as `from 0 to 1`; empty if there are none.

        >>> Setting("", above=0).bounds, Setting("", at_least=0, below=1).bounds, Setting("", above=0, below=1).bounds
        ('above 0', 'at least 0 and below 1', 'above 0 and below 1')
        """
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        named = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return " and ".join(f"{words} {bound}" for words, bound in named.items() if bound is not None)

    def admits(self, value: Any) -> bool:
        """Whether a number is finite and within the bounds."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


@dataclasses.dataclass(frozen=True)
class Described:
    """A field of a settings class.

    Attributes:
        name: Name of the field.
        default: Default of the field.
        setting: Bounds and help.
        kind: Type of the value, or of the entries of a tuple.
        optional: Whether the value may be `None`.
        is_tuple: Whether the value is a tuple.
        length: Number of entries of the tuple; `None` if any number is allowed.
        or_tuple: Whether a tuple of this length may stand for a single value.
    """

    name: str
    default: Any
    setting: Setting
    kind: type
    optional: bool
    is_tuple: bool
    length: int | None
    or_tuple: bool


def setting(default: Any, help: str, **details: Any) -> Any:
    """Describes a field of a settings class.

    Args:
        default: Default of the field.
        help: What the setting does.
        **details: Bounds and other attributes of `Setting`.
    """
    return dataclasses.field(default=default, metadata={_KEY: Setting(help, **details)})


def other_default(base: type[Any], name: str, default: Any) -> Any:
    """Gives an inherited field a new default; its help and bounds stay.

    Args:
        base: The settings class that defines the field.
        name: Name of the field.
        default: The new default.
    """
    fields = {field.name: field for field in dataclasses.fields(base)}
    return dataclasses.field(default=default, metadata=fields[name].metadata)


def describe_settings(cls: type) -> dict[str, Described]:
    """The settings of a class by name, in the order of its fields; fields that hold a settings class are left out."""
    return _described(cls)


@functools.cache
def _described(cls: type) -> dict[str, Described]:
    hints = typing.get_type_hints(cls)
    return {
        field.name: Described(field.name, field.default, field.metadata[_KEY], *_resolve(hints[field.name]))
        for field in dataclasses.fields(cls)
        if _KEY in field.metadata
    }


def _resolve(hint: Any) -> tuple[type, bool, bool, int | None, bool]:
    """Resolves a type hint into `kind`, `optional`, `is_tuple`, `length` and `or_tuple` of `Described`."""
    optional = False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        hint, optional = options[0], len(options) < len(typing.get_args(hint))
        if len(options) > 1:
            return hint, optional, False, len(typing.get_args(options[1])), True
    if typing.get_origin(hint) is tuple:
        entries = typing.get_args(hint)
        return entries[0], optional, True, None if entries[-1] is Ellipsis else len(entries), False
    return hint, optional, False, None, False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings classes. It checks all values on creation."""

    def __post_init__(self) -> None:
        check(self)


def check(settings: Settings) -> None:
    """Checks types, bounds and choices of all settings.

    Raises:
        UserError: A value is invalid. The message gives the argument, what was expected and what was received.
    """
    for described in describe_settings(type(settings)).values():
        _check_value(described, getattr(settings, described.name))


def _check_value(described: Described, value: Any) -> None:
    if value is None and described.optional:
        return
    name, one = described.name, described.setting
    if described.is_tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"`{name}` must be a sequence. Received: {value!r}.")
        if described.length not in (None, len(value)):
            raise UserError(f"`{name}` must be {described.length} values. Received: {_show(value)}.")
        for entry in value:
            if one.choices and entry not in one.choices:
                raise UserError(f"`{name}` must name some of {', '.join(one.choices)}. Received: {entry!r}.")
    elif one.choices and value not in one.choices:
        raise UserError(f"`{name}` must be one of {', '.join(one.choices)}. Received: {value!r}.")
    if described.kind not in (int, float):
        for entry in value if described.is_tuple else (value,):
            if not isinstance(entry, described.kind):
                wanted = _KINDS.get(described.kind, f"a {described.kind.__name__}")
                raise UserError(f"`{name}` must be {wanted}. Received: {_show(value)}.")
        return
    wanted, whole = ("a whole number", True) if described.kind is int else ("a number", False)
    several = described.is_tuple or (described.or_tuple and isinstance(value, tuple) and len(value) == described.length)
    for entry in value if several else (value,):
        if isinstance(entry, bool) or not isinstance(entry, numbers.Integral if whole else numbers.Real):
            raise UserError(f"`{name}` must be {wanted}. Received: {_show(value)}.")
        if not one.admits(entry):
            raise UserError(f"`{name}` must be {one.bounds or 'finite'}. Received: {_show(value)}.")


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else repr(value)


def require(settings: Settings, name: str) -> Any:
    """Returns the value of a setting that must be set.

    Raises:
        UserError: The setting isn't set.
    """
    value = getattr(settings, name)
    if value in (None, ""):
        raise UserError(f"`{name}` is needed: {describe_settings(type(settings))[name].setting.help}")
    return value


def recorded(settings: Settings, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that results depend on, by name, in a form that JSON can hold.

    Args:
        settings: The settings. Fields that hold other settings classes are left out.
        without: Names of settings to leave out.
    """
    return {
        name: getattr(settings, name)
        for name, described in describe_settings(type(settings)).items()
        if described.setting.recorded and name not in without and getattr(settings, name) != described.setting.before
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeded(Settings):
    """Settings of anything that draws random numbers."""

    seed: int = setting(0, "Random seed.", at_least=0, at_most=2**32 - 1)
