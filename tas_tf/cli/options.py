"""Defines the flags, which follow from the settings, and reads the command line into a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from absl import flags

from tas_tf.cli.table import OPTIONS, READERS, CallSettings, Flag, resolve, sections
from tas_tf.errors import UserError, speaking_of
from tas_tf.recipes import DEFAULT, SEARCHING
from tas_tf.runs.config import RunConfig


def define_flags(known: dict[str, Flag], values: flags.FlagValues) -> None:
    """Defines all flags.

    Args:
        known: The flags by name.
        values: Where to define them; `absl.flags.FLAGS` in a command.
    """
    for flag in known.values():
        _define(flag, values)


def _define(flag: Flag, values: flags.FlagValues) -> None:
    """Defines a flag of the setting's type; the setting checks bounds and choices."""
    name, default, described, options = flag.name, flag.default, flag.described, {"flag_values": values}
    if name == "budget":
        flags.DEFINE_multi_string(name, [str(budget) for budget in default], flag.help, **options)
    elif name in READERS:
        flags.DEFINE_string(name, None if default is None else str(default), flag.help, **options)
    elif described.is_tuple:
        flags.DEFINE_list(name, [str(entry) for entry in default], flag.help, **options)
    elif described.kind is bool:
        flags.DEFINE_bool(name, default, flag.help, **options)
    elif described.kind is int:
        flags.DEFINE_integer(name, default, flag.help, **options)
    elif described.kind is float:
        flags.DEFINE_float(name, default, flag.help, **options)
    else:
        flags.DEFINE_string(name, default, flag.help, **options)


#: All flags by name. Every command defines all of them, because an unknown flag in a flagfile would be fatal.
FLAGS = resolve()
define_flags(FLAGS, flags.FLAGS)
# Flags may follow arguments that aren't flags, as in `describe mine.keras --json`.
flags.FLAGS.set_gnu_getopt()


@dataclass(frozen=True)
class Parsed:
    """The settings that the command line gives.

    Attributes:
        config: Settings of the run.
        call: Settings of this call alone.
    """

    config: RunConfig
    call: CallSettings


def parse() -> Parsed:
    """Reads the values of all flags; those that aren't given have the defaults of the recipe.

    Raises:
        UserError: A value is invalid.
    """
    _follow_recipe()
    found: dict[str, dict[str, Any]] = {name: {} for name in sections()}
    for option in OPTIONS:
        value = _value(FLAGS[option.flag])
        for target in option.targets:
            section, _, field = target.rpartition(".")
            if value is not None or not option.overrides:
                found[section][field] = value
    own, call = found.pop(""), found.pop("call")
    nested: dict[str, Any] = {}
    for name, values in found.items():
        with speaking_of(name):
            nested[name] = sections()[name](**values)
    return Parsed(RunConfig(**own, **nested), CallSettings(**call))


def _follow_recipe() -> None:
    """Sets the recipe if it isn't given, and the flags that aren't given to its defaults."""
    values = flags.FLAGS
    if not is_given("recipe"):
        values["recipe"].value = SEARCHING if epochs_choose_recipe() else DEFAULT
    for flag in FLAGS.values():
        if flag.defaults and not is_given(flag.name):
            values[flag.name].value = flag.defaults.get(values["recipe"].value, values[flag.name].default)


def epochs_choose_recipe() -> bool:
    """Whether the recipe isn't given, and follows from the epochs of a search."""
    return is_given("search_epochs") and not any(map(is_given, ("recipe", "proposals", "searched")))


def _value(flag: Flag) -> Any:
    """The value of a flag, converted to the type of its setting.

    Raises:
        UserError: The value can't be read.
    """
    given = flags.FLAGS[flag.name].value
    if flag.name in READERS:
        return READERS[flag.name](given)
    if not flag.described.is_tuple:
        # An empty text takes back what a flagfile gives.
        return None if given == "" and flag.described.optional else given
    if flag.described.kind is str:
        return tuple(dict.fromkeys(given)) if flag.described.setting.choices else tuple(given)
    try:
        numbers = tuple(flag.described.kind(text) for text in given)
    except ValueError:
        numbers = ()
    if flag.described.length not in (None, len(numbers)):
        raise UserError(
            f"`{flag.option.targets[0]}` must be {flag.described.length} numbers, separated by commas. "
            f"Received: {','.join(given)}."
        )
    return numbers


def is_given(name: str) -> bool:
    """Whether a flag was given."""
    return bool(flags.FLAGS[name].present)
