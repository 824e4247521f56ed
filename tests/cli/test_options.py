"""One description of every setting: flags, help and the table in the documentation follow it."""

import ast
import dataclasses
import re
from collections import defaultdict
from pathlib import Path

import keras
import pytest
from absl import flags

from tas_tf.cli.commands import COMMANDS
from tas_tf.cli.document import table, with_table
from tas_tf.cli.help import help_text
from tas_tf.cli.options import FLAGS, define_flags, parse
from tas_tf.cli.table import OPTIONS, options_of, resolve, sections
from tas_tf.cli.wording import flag_name, message, translate
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.recipes import RECIPES
from tas_tf.runs.config import RunConfig
from tas_tf.settings import Settings, describe_settings, setting
from tests.commands import fresh_flags

ROOT = Path(__file__).parents[2]


def bases() -> set[type]:
    """All settings classes that sections are made of."""
    return {base for cls in sections().values() for base in cls.__mro__ if issubclass(base, Settings)}


def parsed(*arguments: str) -> RunConfig:
    """What a command with these flags is told."""
    with fresh_flags(*arguments):
        return parse().config


def test_every_setting_has_a_flag_and_every_flag_a_setting():
    known = {f"{section}.{name}".lstrip(".") for section, cls in sections().items() for name in describe_settings(cls)}
    targets = {target for option in OPTIONS for target in option.targets}
    # A teacher has no teacher, and fine-tuning for 8 bits can't recompute.
    without = {f"teacher.{name}" for name in ("alpha", "alpha_end", "temperature", "views")} | {"qat.recompute"}
    assert known - targets == without
    assert targets <= known


def test_no_setting_is_described_twice():
    described, texts = defaultdict(set), defaultdict(set)
    for cls in bases():
        for name, found in describe_settings(cls).items():
            described[name].add(found.setting)
            texts[found.setting.help].add(name)
    assert {name: found for name, found in described.items() if len(found) > 1} == {}
    assert {text: names for text, names in texts.items() if len(names) > 1} == {}


def test_no_function_repeats_the_default_of_a_setting():
    """Signatures take it from the class: `momentum: float = Optimisation.momentum`."""
    defaults = {
        name: found.default for cls in bases() for name, found in describe_settings(cls).items() if found.default
    }
    plain = {name: default for name, default in defaults.items() if type(default) in (int, float, str) and default != 1}
    found = []
    for path in (ROOT / "tas_tf").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                given = function.args
                ordered = zip(reversed(given.posonlyargs + given.args), reversed(given.defaults), strict=False)
                for argument, default in [*ordered, *zip(given.kwonlyargs, given.kw_defaults, strict=True)]:
                    known = argument.arg in plain and isinstance(default, ast.Constant)
                    if known and plain[argument.arg] == default.value:
                        found.append(f"{path.name}: {function.name}({argument.arg})")
    assert found == []


def test_flags_that_several_settings_share_have_one_default():
    for option in OPTIONS:
        owners = [target.rpartition(".") for target in option.targets]
        defaults = {describe_settings(sections()[section])[name].default for section, _, name in owners}
        assert len(defaults) == 1, option


def test_defaults_of_flags_are_those_of_the_settings():
    assert parsed("--recipe=paper") == RunConfig(recipe="paper")
    assert parsed("--search_epochs=600") == RunConfig(recipe="paper")


@pytest.mark.parametrize("recipe", ["fast", "balanced"])
def test_a_recipe_changes_defaults_but_not_what_is_given(recipe):
    config = parsed(f"--recipe={recipe}", "--student_epochs=7", "--student_lr=0.3")
    assert (config.student.epochs, config.student.lr, config.teacher.lr) == (7, 0.3, 0.1)
    for name, value in RECIPES[recipe].items():
        section, _, field = name.partition(".")
        if name != "student.epochs":
            assert getattr(getattr(config, section), field) == value
    assert parsed() == parsed("--recipe=balanced")


def test_values_reach_the_settings_and_special_ones_win():
    given = ["--lr=0.3", "--search_lr=0.2", "--kd_alpha=0.5", "--num_drawn=all", "--arch_betas=0.4,0.9", "--nokd"]
    config = parsed(*given, "--budget=macs:0.4", "--budget=params:10k", "--seed=7")
    assert (config.teacher.lr, config.search.lr, config.student.lr, config.qat.lr) == (0.3, 0.2, 0.3, 0.01)
    assert (config.student.alpha, config.qat.alpha) == (0.5, 0.5)
    assert (config.search.num_drawn, config.search.arch_betas, config.kd) == (None, (0.4, 0.9), False)
    assert [str(budget) for budget in config.budgets] == ["macs:0.4", "params:10000"]
    assert {getattr(config, name).seed for name in ("data", "teacher", "search", "student", "qat")} == {7}


def test_a_changed_setting_changes_flag_help_and_documentation():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Changed(sections()["search"]):
        """The settings of a search, one of them otherwise."""

        cost_weight: float = setting(7.5, "How much the cost counts.", at_least=1)

    known = resolve({**sections(), "search": Changed})
    values = flags.FlagValues()
    define_flags(known, values)
    assert values["cost_weight"].default == 7.5
    with pytest.raises(UserError, match="`cost_weight` must be at least 1"):
        Changed(cost_weight=0.5)
    for shown in (help_text("", known, COMMANDS["search"]), "\n".join(table(known))):
        assert "How much the cost counts." in shown
        assert "7.5" in shown
    assert "7.5" not in help_text("", FLAGS, COMMANDS["search"])


def test_the_documentation_is_current():
    text = (ROOT / "docs/METHOD.md").read_text()
    assert text == with_table(text), "run `make docs`"


def test_help_shows_what_a_command_uses_and_all_on_demand():
    for command in COMMANDS.values():
        shown = help_text("What it does.", FLAGS, command)
        own = {option.flag for option in options_of(command)}
        assert own
        assert all(flag in own or flag in {option.group for option in OPTIONS} for flag in command.flags), command.name
        for name, flag in FLAGS.items():
            line = f"\n  --{'[no]' if flag.is_switch else ''}{name} "
            assert (line in shown) == (name in own), (command.name, name)
        assert max(map(len, shown.splitlines())) <= 100
    whole = help_text("", FLAGS)
    assert all(f"{name} " in whole for name in FLAGS)
    for mistake in ("on unless given", ".;", "`"):
        assert mistake not in whole
    assert next(option for option in OPTIONS if option.flag == "seed").group == "Run"


@pytest.mark.parametrize(
    ("command", "names"),
    {
        # What the rival `random` uses, and how the report is printed.
        "pipeline": ["random_shapes", "random_epochs", "json"],
        # The size of a file depends on what is inside.
        "baseline": ["preprocessing_inside", "preprocess"],
        "search": ["preprocessing_inside", "preprocess"],
        "export": ["json"],
    }.items(),
)
def test_help_shows_what_is_used_indirectly(command, names):
    shown = help_text("", FLAGS, COMMANDS[command])
    for name in names:
        assert f"\n  --{'[no]' if FLAGS[name].is_switch else ''}{name} " in shown


def test_the_help_of_the_pipeline_leaves_out_what_only_other_commands_use():
    assert {option.flag for option in OPTIONS} - {option.flag for option in options_of(COMMANDS["pipeline"])} == {
        "kind",
        "compare",
        "page",
    }


@pytest.mark.parametrize(
    ("flag", "commands"),
    {
        "dry_run": {"pipeline", "teacher", "search", "distill"},
        "json": {"describe", "pipeline", "export", "report"},
        "compare": {"report"},
        "jit_compile": {"pipeline", "search"},
        "rivals": {"pipeline"},
        "student_epochs": {"pipeline", "distill"},
    }.items(),
)
def test_help_shows_no_flag_that_the_command_ignores(flag, commands):
    using = {one.name for one in COMMANDS.values() if flag in {option.flag for option in options_of(one)}}
    assert using == commands


def test_arguments_become_flags():
    for text, section, expected in (
        ("`alpha` must be from 0 to 1.", "student", "`--kd_alpha` must be from 0 to 1."),
        ("`epochs` must be at least 1.", "qat", "`--qat_epochs` must be at least 1."),
        ("`epochs` must be at least 1.", None, "`epochs` must be at least 1."),
        ("more `qat.epochs`", "export", "more `--qat_epochs`"),
        ("Give `inherit`=none.", "student", "Give `--inherit=none`."),
        ("a layer `conv` of `digits`", None, "a layer `conv` of `digits`"),
        ("Layer `noise` (Noise) is in `seed`.", "search", "Layer `noise` (Noise) is in `seed`."),
        (
            "Nested model `preprocessing`; give `preprocessing`.",
            None,
            "Nested model `preprocessing`; give `--preprocess`.",
        ),
        ("  data.seed: was 0, now 1\n  search.seed: was 0, now 1", None, "  seed: was 0, now 1"),
        ("Run `export` first.", None, "Run `python -m export.student` first."),
    ):
        assert translate(text, section) == expected


def texts(path: Path) -> list[str]:
    """String literals of a file, docstrings left out."""
    tree = ast.parse(path.read_text())
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docs = {id(node.body[0].value) for node in documented if ast.get_docstring(node)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in constants if id(node) not in docs]


def test_no_argument_follows_a_word_that_announces_other_names():
    """Such an argument would not become a flag."""
    argument = re.compile(r"(?:^|\S+ )`([a-z_0-9]+(?:\.[a-z_0-9]+)?)`")
    for path in (ROOT / "tas_tf").rglob("*.py"):
        for text in texts(path):
            for found in argument.finditer(text):
                if flag := flag_name(found[1]):
                    assert f"`--{flag}" in translate(found[0]), (path, text)


def test_names_of_layers_stay():
    """Layers may have names that arguments have too."""
    images = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(8, 3, name="flip")(images)
    noisy = keras.layers.GaussianDropout(0.5, name="noise")(features, training=True)
    scores = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(noisy))
    with pytest.raises(UserError) as error:
        Graph.from_model(keras.Model(images, scores))
    assert "`noise`" in str(error.value)
    assert message(error.value) == str(error.value)


def test_the_library_names_no_flags():
    """Its messages name arguments and steps, which the commands translate."""
    named = re.compile(rf"--(no)?({'|'.join(FLAGS)})\b")
    for path in (ROOT / "tas_tf").rglob("*.py"):
        if path.relative_to(ROOT / "tas_tf").parts[0] != "cli":
            found = [text for text in texts(path) if named.search(text)]
            assert found == [], path
            assert [text for text in texts(path) if "python -m" in text] == [], path
