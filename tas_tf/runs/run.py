"""The run folder: where results lie, and which steps are done, stale or half done."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tas_tf.errors import UserError
from tas_tf.files import PARTIAL_PREFIX, read_json, remove_partial, write_json
from tas_tf.runs.origins import compare_inputs, compare_settings, flatten, hash_content

Status = Literal["missing", "unfinished", "fresh", "stale"]


class Run:
    """The folder of one run, `RUN` below. Nothing is created before it is needed.

    Args:
        run_dir: The folder. It may be new.
    """

    def __init__(self, run_dir: str | os.PathLike):
        self.path = Path(run_dir)

    @property
    def flags_cfg(self) -> Path:
        """The settings of the run."""
        return self.path / "flags.cfg"

    @property
    def teacher_model(self) -> Path:
        """The unpruned, trained network."""
        return self.path / "teacher" / "model.keras"

    @property
    def search_shape(self) -> Path:
        """The shape found."""
        return self.path / "search" / "shape.json"

    @property
    def probabilities(self) -> Path:
        """Of each width and depth, as the search left them: shapes at other budgets are decoded from them."""
        return self.search_shape.with_name("probabilities.json")

    @property
    def supernet_student(self) -> Path:
        """The network of the shape found, with the weights that it had in the supernet."""
        return self.search_shape.with_name("from_supernet.keras")

    @property
    def filtered_teacher(self) -> Path:
        """The network of a shape whose filters were chosen, with the teacher's weights."""
        return self.search_shape.with_name("from_teacher.keras")

    @property
    def student_model(self) -> Path:
        """The small, trained network."""
        return self.path / "student" / "model.keras"

    def quantised(self, name: str) -> Path:
        """Returns the folder of a network, `student` or `teacher`, trained with fake quantisation."""
        return self.path / f"qat_{name}" / "saved_model"

    @property
    def export_dir(self) -> Path:
        """The folder of SavedModel and TFLite files."""
        return self.path / "export"

    @property
    def report_json(self) -> Path:
        """The report for programs."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    def metrics(self, step: str) -> Path:
        """Returns the metrics file of a step."""
        return self.path / step / "metrics.json"

    def checkpoints(self, step: str) -> Path:
        """Returns the folder of a step's checkpoints, which exists while the step is under way."""
        return self.path / step / "checkpoints"

    def logs(self, step: str) -> Path:
        """Returns the folder of a step's TensorBoard files."""
        return self.path / "logs" / step

    def prepare(self) -> None:
        """Creates the folder.

        Raises:
            UserError: If files can't be written there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=PARTIAL_PREFIX, dir=self.path):
                return
        except OSError as error:
            raise UserError(
                f"`run_dir` must be a folder that can be written. Received: {self.path} ({error.strerror})."
            ) from error

    def step(
        self,
        name: str,
        *,
        settings: Mapping[str, Any],
        outputs: Sequence[Path],
        inputs: Mapping[str, Path] | None = None,
        version: int = 1,
    ) -> "Step":
        """Describes a step of this run.

        Args:
            name: Also the name of its folder: letters, digits and underscores.
            settings: All that its result depends on, and nothing else; JSON values, nested as you like.
            outputs: The files and folders that are there when it is done, all inside the run folder.
            inputs: Files or folders it reads, by a name for messages.
            version: Raised when the code changes what the same settings give.
        """
        if not name.isidentifier():
            raise ValueError(f"`name` must be a plain name, since its folder may be removed. Received: {name!r}.")
        for output in outputs:
            if not Path(output).is_relative_to(self.path):
                raise ValueError(f"`outputs` must lie inside {self.path}. Received: {output}.")
        return Step(
            run=self,
            name=name,
            # Through JSON, so that tuples compare equal to the lists that are read back.
            settings=json.loads(json.dumps(settings)),
            inputs={label: Path(path) for label, path in (inputs or {}).items()},
            outputs=tuple(Path(output) for output in outputs),
            version=version,
        )


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a run, made by `Run.step`.

    ```
    if step.begin(overwrite=overwrite):
        ...  # writes step.outputs, with checkpoints in step.checkpoints
        step.finish()
    ```
    """

    run: Run
    name: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: tuple[Path, ...]
    version: int

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Names of all settings, nested ones dotted."""
        return tuple(flatten(self.settings))

    @property
    def folder(self) -> Path:
        """The step's own folder."""
        return self.run.path / self.name

    @property
    def checkpoints(self) -> Path:
        """The folder of the step's checkpoints."""
        return self.run.checkpoints(self.name)

    @property
    def digest_path(self) -> Path:
        """The record of what the result was made from."""
        return self.folder / "digest.json"

    @property
    def _pending_path(self) -> Path:
        """What a result that is to replace another is being made from; gone once it is in place, or has failed."""
        return self.folder / "digest.pending.json"

    def status(self) -> Status:
        """Returns what is there.

        Returns:
            `missing`: nothing. `unfinished`: checkpoints or part of the result, from the same settings and
                inputs.
            `fresh`: the result, from the same ones. `stale`: something made from others, see `differences`.

        Raises:
            UserError: If an input is missing.
        """
        there = [output.exists() for output in self.outputs]
        if not any(there) and not (self.checkpoints.is_dir() and any(self.checkpoints.iterdir())):
            return "missing"
        if self.differences():
            return "stale"
        if self._pending_path.exists():
            return "unfinished"
        return "fresh" if all(there) and self._read_record().get("complete") else "unfinished"

    def differences(self) -> list[str]:
        """Returns in words what changed since the result was made: `name: was X, now Y`."""
        if not self.digest_path.exists():
            return ["digest.json: missing, so nobody knows what made these files"]
        was, now = self._read_record(), self._record(complete=True)
        if was.get("digest") == now["digest"]:
            return []
        if was.get("version") != now["version"]:
            return compare_settings({"step version": was.get("version")}, {"step version": now["version"]})
        return [
            *compare_settings(was.get("settings", {}), now["settings"]),
            *compare_inputs(was.get("inputs", {}), now["inputs"], self.inputs),
        ] or ["digest.json: was changed by hand"]

    def begin(self, *, overwrite: bool = False) -> bool:
        """Decides whether the step has to run, and readies its folder if so.

        Args:
            overwrite: First remove whatever it left, checkpoints and logs included.

        Returns:
            False if the result is there and up to date.

        Raises:
            UserError: If there is something made from other settings or inputs, an input is missing, or the
                folder can't be written.
        """
        record = self._record(complete=False)
        if overwrite:
            self.remove()
        status = self.status()
        if status == "fresh":
            return False
        if status == "stale":
            listing = "\n".join(f"  {line}" for line in self.differences())
            raise UserError(
                f"The step `{self.name}` in {self.run.path} was made from other settings or inputs:\n"
                f"{listing}\nUse `overwrite` to make it again, or another `run_dir`."
            )
        self._start(self.digest_path, record)
        return True

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """Runs the step over whatever is there, which counts until the block ends without an error.

        For a step that puts its result into place as a whole. Killed in between, the step is `unfinished`.

        Raises:
            UserError: An input is missing, or the folder can't be written.
            FileNotFoundError: If an output was not written.
        """
        record = self._record(complete=True)
        self._start(self._pending_path, record)
        try:
            yield
            self._check_outputs()
            write_json(self.digest_path, record)
        finally:
            self._pending_path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Records that the result is whole, and removes the checkpoints.

        Raises:
            FileNotFoundError: If an output was not written.
        """
        self._check_outputs()
        # What `begin` recorded: an input that changed meanwhile must show up as a difference.
        write_json(self.digest_path, self._read_record() | {"complete": True})
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _start(self, record_path: Path, record: Mapping[str, Any]) -> None:
        """Readies the folder and writes what the result is being made from."""
        self.run.prepare()
        try:
            self.folder.mkdir(exist_ok=True)
            remove_partial(self.folder)
            write_json(record_path, record)
        except OSError as error:
            raise UserError(f"Can't write into {self.folder}: {error.strerror}.") from error

    def _check_outputs(self) -> None:
        for output in self.outputs:
            if not output.exists():
                raise FileNotFoundError(f"The step `{self.name}` did not write {output}.")

    def remove(self) -> None:
        """Removes the step's outputs, folder and logs."""
        for path in (*self.outputs, self.folder, self.run.logs(self.name)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _record(self, *, complete: bool) -> dict[str, Any]:
        made_from = {
            "version": self.version,
            "settings": self.settings,
            "inputs": {label: hash_content(path) for label, path in self.inputs.items()},
        }
        canonical = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
        return {"digest": hashlib.sha256(canonical.encode()).hexdigest(), **made_from, "complete": complete}

    def _read_record(self) -> dict[str, Any]:
        record = read_json(self.digest_path)
        return record if isinstance(record, dict) else {}
