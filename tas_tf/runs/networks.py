"""The data, devices and networks of a run, each loaded or made on first use."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf
from rich.markup import escape

from tas_tf import workers
from tas_tf.data.form import Form
from tas_tf.data.image_files import LEFT_OUT, LISTED
from tas_tf.data.own_data import OwnData, Script, needs_own_network
from tas_tf.data.resizing import pair
from tas_tf.data.run_data import RunData
from tas_tf.data.settings import DataSettings
from tas_tf.data.sources import needs_size
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.files import write_bytes
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import fixed_size, takes_any_size, with_image_size
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.losses import is_standard
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.several import Several
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import read_result
from tas_tf.runs.shared import Shared
from tas_tf.settings import require
from tas_tf.training.strategy import make_strategy
from tas_tf.zoo.loading import in_precision, load_file, load_network, losses_in_file

#: Only data with a class for each image comes without a given size; its objective doesn't depend on the size.
_ANY_SIZE = 224
_VERBOSE: dict[str, int | str] = {"auto": "auto", "bar": 1, "lines": 2, "none": 0}


@dataclass(frozen=True, eq=False)
class RunNetworks:
    """One run with its data and networks.

    Attributes:
        config: Settings of the run.
        shared: What the run shares with the runs inside its folder.
    """

    config: RunConfig
    shared: Shared

    def say(self, text: str, *, section: str | None = None, **style: Any) -> None:
        """Prints a line for the user.

        Args:
            text: The line, with arguments in backticks.
            section: Section of the config that the arguments belong to, if several have one of that name.
            **style: Options of `rich.console.Console.print`.
        """
        self.shared.console.print(self.shared.wording(text, section), highlight=False, soft_wrap=True, **style)

    def say_once(self, text: str) -> None:
        """Prints a line that names files, unless the user has read it."""
        if text not in self.shared.said:
            self.say(escape(text))  # paths may have brackets
            self.shared.said.add(text)

    @property
    def verbose(self) -> int | str:
        """The `verbose` argument for Keras."""
        return _VERBOSE[self.config.progress] if workers.is_chief() else 0

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy for the run's devices."""
        return make_strategy(self.config.strategy)

    def sized(self) -> Self:
        """This run with the size of its network's images, if image files need a size and the user gave none."""
        config, teacher = self.config, self.config.teacher_run.teacher_model
        if config.data.image_size is not None or not needs_size(config.data.dataset):
            return self
        if teacher.exists() and not self.replaces_teacher:
            model = self.load(teacher)
        elif config.model_file:
            model = self._loaded_file()
        else:
            return self
        return replace(self, config=replace(config, data=replace(config.data, image_size=fixed_size(model))))

    @property
    def task(self) -> RunData:
        """The data of the run."""
        data, tasks = self.config.data, self.shared.tasks
        if data not in tasks:
            tasks[data] = self.load_task() if self.script is None else self._load_own()
            for note in tasks[data].notes:
                self.say_once(note)
        return tasks[data]

    @property
    def script(self) -> Script | None:
        """The user's Python file that makes the data; `None` for data in files."""
        name, scripts = self.config.data.dataset, self.shared.scripts
        if name not in scripts:
            scripts[name] = Script.of(name)
        return scripts[name]

    def _load_own(self) -> OwnData:
        if self.config.export.preprocessing_inside:
            raise UserError("`preprocessing_inside` puts preprocessing into files, but a Python file prepares images.")
        objective, form = self._meant()
        return OwnData.load(self.script, self.config.data, objective=objective, form=form)

    def load_task(self, *, streamed: bool = False) -> Task:
        """Loads data in files anew.

        Args:
            streamed: Whether images are read from their files, even if they fit into memory.
        """
        data = self.config.data
        settings = {field.name: getattr(data, field.name) for field in fields(data)}
        objective, form = self._meant()
        if form is not None and self.config.export.preprocessing_inside:
            raise UserError("`preprocessing_inside` needs a network with one input. Leave it out.")
        if streamed and not needs_size(data.dataset):  # images that fit into memory were decoded to get there
            settings["check_images"] = False
        return Task.load(**settings, objective=objective, form=form, streamed=streamed)

    def list_left_out(self) -> None:
        """Lists the files that the run's data leaves out in its folder, if the data has been loaded."""
        data, listing = self.shared.tasks.get(self.config.data), self.config.run.path / LEFT_OUT
        if not isinstance(data, Task) or not workers.is_chief():
            return
        if left_out := data.source.left_out:
            write_bytes(listing, "".join(f"{path}: {why}\n" for path, why in left_out).encode())
        else:
            listing.unlink(missing_ok=True)
        if len(left_out) > LISTED:
            self.say_once(f"{LEFT_OUT} in the run folder lists all {len(left_out)} files that are left out.")

    def _meant(self) -> tuple[Objective | None, Form | None]:
        """What the network in the user's file or the run's teacher is for, and what it takes.

        Returns:
            The objective, `None` for the classes of the data; the form of the data, `None` for images alone in files.
        """
        config = self.config
        metrics, task = config.teacher_run.metrics("teacher"), config.network.task
        if metrics.exists() and not self.replaces_teacher:
            found = read_result(metrics)
            # Teachers of earlier versions classify.
            trained = found.get("task", Classification.task)
            task = task or (None if trained == Several.task else trained)
            per_image = found.get("metric", "accuracy") == "accuracy"
            alone = per_image and not found.get("inputs")
            plain = task == Classification.task and alone and is_standard(self.losses["loss"], task)
            if plain and self.script is None:
                return None, None
            model = self.load_teacher()
        elif config.model_file:
            model = self._loaded_file()
        elif self.script is not None:
            raise needs_own_network()
        elif task not in (None, Classification.task):
            raise UserError(f"`task`={task} needs a `model` of your own. Built-in networks classify.")
        elif config.network.train_model:
            raise UserError("`train_model` needs a `model` of your own. Built-in networks are always trained.")
        elif config.network.loss is not None:
            raise UserError(
                f"`loss`={config.network.loss} needs a `model` of your own. Built-in networks learn by cross-entropy."
            )
        else:
            return None, None
        graph = graph_at(model, config.data, self.script)
        form = form_of(graph) if self.script is None else Form.of(graph)
        return choose_objective(graph, task=task, **self.losses), form

    @property
    def losses(self) -> dict[str, Any]:
        """What `keras.Model.compile` takes for the run: `loss` and `loss_weights`.

        The loss is the one that the user gives, or else that of the run's teacher or of the user's file.
        """
        config, teacher = self.config, self.config.teacher_run.teacher_model
        given = config.network.loss
        say = self.say_once if given is None else lambda text: None
        found: dict[str, Any] = {"loss": None, "loss_weights": None}
        if teacher.exists() and not self.replaces_teacher:
            found = losses_in_file(teacher, say=say)
        elif config.model_file:
            found = losses_in_file(config.model_file, say=say)
        return found if given is None else {**found, "loss": given}

    @property
    def replaces_teacher(self) -> bool:
        """Whether the user's file may take the place of the run's teacher."""
        config = self.config
        return config.overwrite and config.model_file is not None and not config.teacher_from

    @property
    def network(self) -> keras.Model:
        """The network that `model` names, built for the run's data; a network from a file keeps its weights.

        It is built only once, because Keras numbers unnamed layers differently each time and shapes refer to layers by
        name.
        """
        config, networks = self.config, self.shared.networks
        key = (config.network, config.data, config.precision)
        if key not in networks:
            networks[key] = self.make_network()
        return networks[key]

    def make_network(self) -> keras.Model:
        """Builds the network that `model` names, or takes it from its file."""
        config = self.config
        name = require(config.network, "model")
        if config.model_file:
            model = self._loaded_file()
            if takes_any_size(model):
                model = with_image_size(model, self.task.input_shape)
            return in_precision(model, config.precision)
        *size, channels = self.task.input_shape
        return load_network(
            name,
            num_classes=config.network.num_classes or len(self.task.class_names),
            image_size=tuple(size),
            channels=channels,
        )

    @property
    def original(self) -> keras.Model | None:
        """The network in the user's file as it is there, perhaps for images of any size; `None` without a file."""
        return self._loaded_file() if self.config.model_file else None

    def _loaded_file(self) -> keras.Model:
        """The network in the user's file, which is read only once: old files are converted, which takes time."""
        path, loaded = self.config.model_file, self.shared.loaded
        if path not in loaded:
            options: dict[str, Any] = {"unsafe_load": self.config.network.unsafe_load, "say": self.say}
            loaded[path] = load_network(str(path), **options)
        return loaded[path]

    def load(self, path: Path) -> keras.Model:
        """Loads a network from a file, with Lambda layers if the user accepts their code.

        Raises:
            UserError: The file can't be loaded.
        """
        return load_file(path, unsafe_load=self.config.network.unsafe_load, say=self.say)

    def free_memory(self) -> None:
        """Frees the memory that Keras holds after a step, and sets the precision again, which this resets."""
        keras.backend.clear_session()
        keras.mixed_precision.set_global_policy(self.config.precision)

    def require_teacher(self) -> Path:
        """Path of the run's teacher.

        Raises:
            UserError: There is no teacher yet.
        """
        path = self.config.teacher_run.teacher_model
        if not path.exists():
            argument = "teacher_from" if self.config.teacher_from else "run_dir"
            raise UserError(f"`{argument}`: there is no teacher, {path}. Run `teacher` first.")
        return path

    def load_teacher(self) -> keras.Model:
        """Loads the teacher of the run.

        Raises:
            UserError: There is no teacher yet.
        """
        return in_precision(self.load(self.require_teacher()), self.config.precision)


def form_of(graph: Graph) -> Form | None:
    """What a network takes, if it has several inputs."""
    form = Form.of(graph)
    return form if form.is_packed else None


def graph_at(model: keras.Model, data: DataSettings, script: Script | None = None) -> Graph:
    """The graph of a network at the size of its images.

    Args:
        model: The network, which may take images of any size.
        data: Settings of the data.
        script: The user's file that makes the data, if there is one: then networks may take and return anything.

    Raises:
        UserError: The network can't be read; or data comes from files, and the network takes anything but images of
            their size and numbers, or has several inputs or outputs and any of the outputs is per pixel.
    """
    if script is not None:
        return Graph.from_model(script.sized(model))
    if takes_any_size(model):
        size = pair(_ANY_SIZE if data.image_size is None else data.image_size)
        model = with_image_size(model, (*size, model.inputs[0].shape[-1] or data.channels or 3))
    graph = Graph.from_model(model)
    shapes, several = Form.of(graph).shapes, max(len(model.inputs), len(model.outputs)) > 1
    found = None
    if sorted(map(len, shapes)) != [1] * (len(shapes) - 1) + [3]:
        found = f"inputs of {', '.join('x'.join(map(str, shape)) for shape in shapes)}"
    elif integers := [one.name for one in model.inputs if len(one.shape) == 2 and "float" not in str(one.dtype)]:
        found = f"whole numbers as the input {integers[0]}"
    elif several and any(len(graph[end.output].shape) > 2 for end in graph.ends):
        found = f"{len(shapes)} inputs and {len(graph.ends)} outputs, of which some are per pixel"
    if found:
        raise UserError(
            "`model` must take images here, and numbers beside them at most; and it must have one input and one output "
            f"if any is per pixel. Received: {graph.network} with {found}. "
            "A Python file as the `dataset` suits any network."
        )
    return graph
