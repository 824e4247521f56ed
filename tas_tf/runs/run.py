"""The run folder: paths of results, and which steps are done, stale or unfinished."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tas_tf import workers
from tas_tf.errors import UserError
from tas_tf.files import digest_of, write_json
from tas_tf.interruption import REQUESTS
from tas_tf.replacing import remove_partial, replace_together, scratch_folder
from tas_tf.runs.lock import acquire
from tas_tf.runs.origins import compare_inputs, compare_settings, flatten, hash_content, list_differences
from tas_tf.runs.records import read_record

Status = Literal["missing", "unfinished", "fresh", "stale"]
_PENDING = "digest.pending.json"  # of an earlier version that was killed while it replaced a result, perhaps halfway


class Run:
    """The folder of one run. Files and folders are created only when they are needed.

    Args:
        run_dir: Path of the folder, which need not exist.
    """

    def __init__(self, run_dir: str | os.PathLike):
        self.path = Path(run_dir)

    @property
    def flags_cfg(self) -> Path:
        """The settings of the run."""
        return self.path / "flags.cfg"

    @property
    def plan(self) -> Path:
        """How the time that the user gave is used."""
        return self.path / "plan.json"

    @property
    def teacher_model(self) -> Path:
        """The trained unpruned network."""
        return self.path / "teacher" / "model.keras"

    @property
    def search_shape(self) -> Path:
        """The shape found."""
        return self.path / "search" / "shape.json"

    @property
    def probabilities(self) -> Path:
        """Probabilities of widths and depths at the end of the search, from which other budgets are decoded."""
        return self.search_shape.with_name("probabilities.json")

    @property
    def supernet_student(self) -> Path:
        """The network of the shape found, with its weights from the supernet."""
        return self.search_shape.with_name("from_supernet.keras")

    @property
    def raced_student(self) -> Path:
        """The network of the shape that won a race, as trained in the race."""
        return self.search_shape.with_name("from_race.keras")

    @property
    def filtered_teacher(self) -> Path:
        """The network of a shape with chosen filters, with the teacher's weights."""
        return self.search_shape.with_name("from_teacher.keras")

    @property
    def student_any_size(self) -> Path:
        """The student for images of any size, if the original takes them."""
        return self.path / "student" / "any_size.keras"

    @property
    def student_model(self) -> Path:
        """The trained small network."""
        return self.path / "student" / "model.keras"

    def quantised(self, name: str) -> Path:
        """Returns the folder of a network, such as `student` or `teacher`, trained with fake quantisation."""
        return self.path / f"qat_{name}" / "saved_model"

    @property
    def export_dir(self) -> Path:
        """The folder of SavedModel and TFLite files."""
        return self.path / "export"

    @property
    def probe_dir(self) -> Path:
        """The folder of networks to time on another device."""
        return self.path / "probe"

    @property
    def check_dir(self) -> Path:
        """The folder that checks the student on another device."""
        return self.path / "check"

    @property
    def latency_json(self) -> Path:
        """The measurement of the student's file against a budget in time."""
        return self.export_dir / "latency.json"

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
        """Returns the folder of a step's checkpoints, which exists until the step is finished."""
        return self.path / step / "checkpoints"

    def logs(self, step: str) -> Path:
        """Returns the folder of a step's TensorBoard files."""
        return self.path / "logs" / step

    def prepare(self) -> None:
        """Creates the folder, and locks it for this process.

        Raises:
            UserError: If the folder isn't writable, or another process works on it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with scratch_folder(self.path):
                pass
            acquire(self.path)
        except OSError as error:
            raise UserError(
                f"`run_dir` must be a writable folder. Received: {self.path} ({error.strerror})."
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
            name: Name of the step and of its folder: letters, digits and underscores.
            settings: Exactly the settings that the result depends on, as JSON values; they may be nested.
            outputs: Files and folders that exist when the step is done, all inside the run folder.
            inputs: Files or folders that the step reads, by their names in messages.
            version: Version of the step's code, to be raised when the same settings give another result.
        """
        if not name.isidentifier():
            raise ValueError(f"`name` must be a plain name, since its folder may be removed. Received: {name!r}.")
        if outside := [path for path in outputs if not Path(path).is_relative_to(self.path)]:
            raise ValueError(f"`outputs` must lie inside {self.path}. Received: {outside[0]}.")
        return Step(
            run=self,
            name=name,
            # Through JSON, so that tuples become the lists that reading the record gives.
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
        """Record of what the result was made from."""
        return self.folder / "digest.json"

    def status(self) -> Status:
        """Returns the state of the step's result.

        Returns:
            `missing`: there is nothing. `unfinished`: there are checkpoints or part of the result, made from the
                current settings and inputs. `fresh`: there is the result, made from the current settings and inputs.
                `stale`: files were made from other settings or inputs, see `differences`.

        Raises:
            UserError: If an input is missing.
        """
        there = [output.exists() for output in self.outputs]
        if not any(there) and not (self.checkpoints.is_dir() and any(self.checkpoints.iterdir())):
            return "missing"
        if self.differences():
            return "stale"
        is_whole = all(there) and not (self.folder / _PENDING).exists()
        return "fresh" if is_whole and read_record(self.digest_path).get("complete") else "unfinished"

    def differences(self) -> list[str]:
        """Describes what changed since the result was made: `name: was X, now Y`."""
        if not self.digest_path.exists():
            return ["digest.json: missing, so the settings behind these files are unknown"]
        was, now = read_record(self.digest_path), self._record(complete=True)
        if "digest" not in was:
            return ["digest.json: was damaged or changed by hand"]
        if was["digest"] == now["digest"]:
            return []
        if was.get("version") != now["version"]:
            return compare_settings({"step version": was.get("version")}, {"step version": now["version"]})
        return [
            *compare_settings(was.get("settings", {}), now["settings"]),
            *compare_inputs(was.get("inputs", {}), now["inputs"], self.inputs),
        ]

    def begin(self, *, overwrite: bool = False, decided: Collection[str] = ()) -> bool:
        """Decides whether the step has to run; if so, prepares its folder.

        Args:
            overwrite: Whether to remove everything that the step left first, including checkpoints and logs.
            decided: Settings that the user didn't give, which the message about others leaves out.

        Returns:
            False if the result exists and is up to date.

        Raises:
            UserError: If existing files were made otherwise, an input is missing, or the folder isn't writable.
        """
        record = self._record(complete=False)
        if overwrite:
            self.run.prepare()  # another process may work on it
            self.remove()
        if (status := self.status()) == "fresh":
            return False
        if status == "stale":
            listing = list_differences(self.differences(), decided)
            raise UserError(
                f"The step `{self.name}` in {self.run.path} was made from other settings or inputs:\n{listing}\n"
                "Use `overwrite` to make it again, or another `run_dir`."
            )
        self._start(record)
        return True

    @contextlib.contextmanager
    def replacing(self, earlier: Iterable[Path] = ()) -> Iterator[Path]:
        """Yields an empty folder in which to make the result, which then replaces an existing one.

        Outputs and record are replaced all at once. If the block ends with an error, they stay as they are.

        Args:
            earlier: What an existing result may consist of besides `outputs`, to be removed if it isn't made anew.

        Raises:
            UserError: If an input is missing, or the folder isn't writable.
            FileNotFoundError: If an output was not written.
        """
        record = self._record(complete=True)
        self._start()
        with scratch_folder(self.folder) as scratch:
            yield scratch
            self._check_outputs([scratch / output.relative_to(self.folder) for output in self.outputs])
            write_json(scratch / self.digest_path.name, record | {"files": self._files(scratch)})
            paths = (*self.outputs, *earlier, self.digest_path, self.folder / _PENDING)
            replace_together(scratch, [path.relative_to(self.folder) for path in paths])

    @workers.on_chief
    def finish(self) -> None:
        """Records that the result is complete, and removes the checkpoints.

        Raises:
            FileNotFoundError: If an output was not written.
        """
        self._check_outputs(self.outputs)
        # Keeps the hashes that `begin` recorded: an input that changed since must show up as a difference.
        made = {"complete": True, "files": self._files(self.folder)}
        write_json(self.digest_path, read_record(self.digest_path) | made)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _start(self, record: Mapping[str, Any] | None = None) -> None:
        """Prepares the folder; writes the record of what is made, if there is one."""
        self.run.prepare()
        try:
            self.folder.mkdir(exist_ok=True)
            remove_partial(self.folder)
            if record is not None:
                write_json(self.digest_path, record)
                (self.folder / _PENDING).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"Can't write into {self.folder}: {error.strerror}.") from error

    def _files(self, made_in: Path) -> dict[str, str]:
        """Hashes of the results that `read_result` reads, by name."""
        own = [path.name for path in self.outputs if path == self.folder / f"{path.stem}.json"]
        return {name: hash_content(made_in / name) for name in own}

    def _check_outputs(self, made: Sequence[Path]) -> None:
        REQUESTS.check()  # a library may have lost the exception, and with it a part of the result
        for output, path in zip(self.outputs, made, strict=True):
            if not path.exists():
                raise FileNotFoundError(f"The step `{self.name}` did not write {output}.")

    def remove(self) -> None:
        """Removes the step's outputs, folder and logs."""
        for path in (*self.outputs, self.folder, self.run.logs(self.name)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _record(self, *, complete: bool) -> dict[str, Any]:
        inputs = {label: hash_content(path) for label, path in self.inputs.items()}
        made_from = {"version": self.version, "settings": self.settings, "inputs": inputs}
        return {"digest": digest_of(made_from), **made_from, "complete": complete}
