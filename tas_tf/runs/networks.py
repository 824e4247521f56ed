"""The data, devices and networks of a run, each loaded or made on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.markup import escape

from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.files import read_json
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import takes_any_size, with_image_size
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.objective import Objective
from tas_tf.runs.config import RunConfig
from tas_tf.runs.shared import Shared
from tas_tf.settings import require
from tas_tf.training.strategy import make_strategy
from tas_tf.zoo.loading import in_precision, load_file, load_network, loss_in_file

_VERBOSE = {"auto": "auto", "bar": 1, "lines": 2, "none": 0}


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

    @property
    def verbose(self) -> int | str:
        """The `verbose` argument for Keras."""
        return _VERBOSE[self.config.progress]

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy for the run's devices."""
        return make_strategy(self.config.strategy)

    @property
    def task(self) -> Task:
        """The data of the run."""
        data, tasks = self.config.data, self.shared.tasks
        if data not in tasks:
            tasks[data] = self.load_task()
            for note in tasks[data].source.notes:
                if note not in self.shared.said:
                    self.say(escape(note))  # paths may have brackets
                    self.shared.said.add(note)
        return tasks[data]

    def load_task(self, *, streamed: bool = False) -> Task:
        """Loads the data anew.

        Args:
            streamed: Whether images are read from their files, even if they fit into memory.
        """
        data = self.config.data
        task = Task.load(**{field.name: getattr(data, field.name) for field in fields(data)}, streamed=streamed)
        objective = self._objective(task.source.image_shape)
        return task if objective is None else task.for_objective(objective)

    def _objective(self, image_shape: Sequence[int]) -> Objective | None:
        """What the network in the user's file or the run's teacher is for; `None` if it is a built-in one."""
        config = self.config
        metrics, task, loss = config.teacher_run.metrics("teacher"), config.network.task, None
        if metrics.exists() and not self.replaces_teacher:
            # A teacher has been taken over without its loss; those of earlier versions classify.
            task = task or read_json(metrics).get("task", Classification.task)
            if task == Classification.task:
                return None
            model = self.load_teacher()
        elif config.model_file:
            model = self._loaded_file()
            loss = None if task else loss_in_file(config.model_file)
        elif task in (None, Classification.task):
            return None
        else:
            raise UserError(f"`task`={task} needs a `model` of your own. Built-in networks classify.")
        return choose_objective(Graph.from_model(with_image_size(model, image_shape)), task=task, loss=loss)

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
                model = with_image_size(model, self.task.source.image_shape)
            return in_precision(model, config.precision)
        *size, channels = self.task.source.image_shape
        return load_network(
            name,
            num_classes=config.network.num_classes or self.task.source.num_classes,
            image_size=tuple(size),
            channels=channels,
        )

    def _loaded_file(self) -> keras.Model:
        """The network in the user's file, which is read only once: old files are converted, which takes time."""
        path, loaded = self.config.model_file, self.shared.loaded
        if path not in loaded:
            options = {"unsafe_load": self.config.network.unsafe_load, "say": self.say}
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
