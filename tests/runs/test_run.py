import zipfile

import keras
import pytest

from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.runs.origins import hash_content
from tas_tf.runs.records import read_record, read_result
from tas_tf.runs.run import Run
from tests.failures import names

SETTINGS = {"epochs": 3, "optimizer": {"learning_rate": 0.1}, "widths": (4, 8)}


@pytest.fixture
def run(tmp_path):
    result = Run(tmp_path / "run")
    result.prepare()
    result.teacher_model.parent.mkdir()
    result.teacher_model.write_text("teacher")
    return result


def describe(run, *, version=1, **changes):
    return run.step(
        "search",
        settings={**SETTINGS, **changes},
        inputs={"teacher": run.teacher_model},
        outputs=[run.search_shape, run.metrics("search")],
        version=version,
    )


def complete(step):
    assert step.begin()
    for output in step.outputs:
        write_json(output, {"made": "now"})
    step.finish()


def leave_checkpoint(step):
    assert step.begin()
    step.checkpoints.mkdir()
    (step.checkpoints / "ckpt-1.index").write_text("x")


def test_paths(tmp_path):
    run = Run(str(tmp_path))
    expected = {
        "flags.cfg": run.flags_cfg,
        "teacher/model.keras": run.teacher_model,
        "search/shape.json": run.search_shape,
        "student/model.keras": run.student_model,
        "student/metrics.json": run.metrics("student"),
        "export": run.export_dir,
        "report.json": run.report_json,
        "report.html": run.report_html,
        "logs/search": run.logs("search"),
        "search/checkpoints": run.checkpoints("search"),
    }
    assert {name: tmp_path / name for name in expected} == expected


def test_finished_step_is_skipped(run):
    step = describe(run)
    assert step.status() == "missing"
    complete(step)
    assert describe(run).status() == "fresh"
    assert describe(run).begin() is False
    # The order of settings, and tuple or list, make no difference.
    assert describe(run, **dict(reversed(SETTINGS.items())), widths_=None).status() == "stale"
    reordered = dict(reversed(SETTINGS.items()))
    assert describe(run, **(reordered | {"widths": [4, 8]})).status() == "fresh"


def test_checkpoints_go_when_the_step_is_finished(run):
    step = describe(run)
    leave_checkpoint(step)
    complete(step)
    assert not step.checkpoints.exists()
    assert read_json(step.digest_path)["settings"]["epochs"] == 3


def test_stale_step_names_what_changed(run):
    complete(describe(run))
    run.teacher_model.write_text("another")
    step = describe(run, optimizer={"learning_rate": 0.2}, seed=1)
    assert step.status() == "stale"
    assert step.differences() == [
        "optimizer.learning_rate: was 0.1, now 0.2",
        "seed: was unset, now 1",
        f"input teacher: was another file, now {run.teacher_model} (content differs)",
    ]
    # Another version may record other settings: they can't be compared.
    assert describe(run, version=2, seed=1).differences() == ["step version: was 1, now 2"]
    with pytest.raises(UserError) as caught:
        step.begin()
    for part in ("`search`", "optimizer.learning_rate: was 0.1, now 0.2", "`overwrite`", "`run_dir`"):
        assert part in str(caught.value)
    assert read_json(run.search_shape) == {"made": "now"}


def test_same_content_at_another_place_is_fresh(run, tmp_path):
    complete(describe(run))
    moved = Run(run.path.rename(tmp_path / "moved"))
    assert describe(moved).status() == "fresh"


def test_unfinished_step_resumes_with_the_same_settings_only(run):
    leave_checkpoint(describe(run))
    assert describe(run).status() == "unfinished"
    assert describe(run).begin() is True
    assert (describe(run).checkpoints / "ckpt-1.index").exists()
    other = describe(run, epochs=5)
    assert other.status() == "stale"
    with pytest.raises(UserError, match="epochs: was 3, now 5"):
        other.begin()
    assert other.begin(overwrite=True) is True
    assert not other.checkpoints.exists()


def test_outputs_that_were_not_recorded_as_whole_are_unfinished(run):
    step = describe(run)
    step.begin()
    write_json(run.search_shape, {})
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        step.finish()
    write_json(run.metrics("search"), {})
    assert describe(run).status() == "unfinished"
    # Nothing worth keeping: other settings may take over.
    run.search_shape.unlink()
    run.metrics("search").unlink()
    assert describe(run, epochs=5).begin() is True


def test_lost_output_is_made_again(run):
    complete(describe(run))
    run.search_shape.unlink()
    assert describe(run).status() == "unfinished"
    complete(describe(run))
    assert describe(run).status() == "fresh"


def test_foreign_files_are_not_replaced(run):
    write_json(run.search_shape, {"by": "hand"})
    with pytest.raises(UserError, match="settings behind these files are unknown"):
        describe(run).begin()
    assert read_json(run.search_shape) == {"by": "hand"}


def test_overwrite_removes_the_step_alone(run):
    step = describe(run)
    complete(step)
    (run.logs("search") / "train").mkdir(parents=True)
    step.begin(overwrite=True)
    assert sorted(path.name for path in step.folder.iterdir()) == ["digest.json"]
    assert not run.logs("search").exists()
    assert run.teacher_model.exists()


def test_input_changed_while_running_is_noticed(run):
    step = describe(run)
    step.begin()
    for output in step.outputs:
        write_json(output, {})
    run.teacher_model.write_text("changed meanwhile")
    step.finish()
    assert describe(run).status() == "stale"


def replace(step, value="later"):
    with step.replacing() as folder:
        for output in step.outputs:
            write_json(folder / output.name, {"made": value})


def test_an_earlier_result_counts_until_the_new_one_is_whole(run):
    complete(describe(run))
    earlier = describe(run).digest_path.read_bytes()
    step = describe(run, epochs=5)
    with step.replacing() as folder:
        for output in step.outputs:
            write_json(folder / output.name, {"made": "later"})
        assert read_result(run.metrics("search")) == {"made": "now"}
        assert step.digest_path.read_bytes() == earlier
        assert describe(run).status() == "fresh"
        assert describe(run, epochs=5).status() == "stale"
    assert read_json(step.digest_path)["settings"]["epochs"] == 5
    assert read_result(run.metrics("search")) == {"made": "later"}
    assert describe(run, epochs=5).status() == "fresh"
    assert describe(run).status() == "stale"


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_a_failure_leaves_the_earlier_result_as_it_was(run, error):
    complete(describe(run))
    before = {path: path.read_bytes() for path in describe(run).folder.iterdir()}

    def fail():
        with describe(run, epochs=5).replacing() as folder:
            write_json(folder / "shape.json", {})
            raise error

    with pytest.raises(error):
        fail()
    assert {path: path.read_bytes() for path in describe(run).folder.iterdir()} == before
    assert describe(run).status() == "fresh"
    assert describe(run, epochs=5).differences() == ["epochs: was 3, now 5"]


def test_a_result_up_to_date_is_replaced_too(run):
    complete(describe(run))
    replace(describe(run), "again")
    assert read_json(run.search_shape) == {"made": "again"}
    assert describe(run).status() == "fresh"


def test_a_first_result_is_put_into_place_as_a_whole(run):
    step = describe(run)

    def leave_half():
        with step.replacing() as folder:
            assert describe(run).status() == "missing"
            write_json(folder / "shape.json", {})

    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        leave_half()
    assert list(step.folder.iterdir()) == []
    replace(step)
    assert describe(run).status() == "fresh"
    assert names(step.folder) == ["digest.json", "metrics.json", "shape.json"]


def test_what_an_earlier_result_alone_had_is_removed(run):
    step = describe(run)
    complete(step)
    for name in ("probabilities.json", "notes.txt"):
        (step.folder / name).write_text("x")
    with step.replacing([step.folder / "probabilities.json"]) as folder:
        for output in step.outputs:
            write_json(folder / output.name, {})
    assert names(step.folder) == ["digest.json", "metrics.json", "notes.txt", "shape.json"]


def test_an_input_that_changes_while_a_result_is_replaced_is_noticed(run):
    step = describe(run)
    with step.replacing() as folder:
        for output in step.outputs:
            write_json(folder / output.name, {})
        run.teacher_model.write_text("changed meanwhile")
    assert [line.split(":")[0] for line in describe(run).differences()] == ["input teacher"]


def test_what_an_earlier_version_was_replacing_when_it_was_killed_is_made_again(run):
    step = describe(run)
    complete(step)
    pending = step.folder / "digest.pending.json"
    pending.write_text("{}")
    assert step.status() == "unfinished"

    def fail():
        with step.replacing():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert step.status() == "unfinished"
    replace(step)
    assert (step.status(), pending.exists()) == ("fresh", False)
    pending.write_text("{}")
    complete(step)
    assert (step.status(), pending.exists()) == ("fresh", False)


def test_nothing_is_replaced_where_nothing_can_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    step = Run(tmp_path / "file" / "run").step("export", settings={}, outputs=[])
    with pytest.raises(UserError, match="`run_dir`"), step.replacing():
        pytest.fail("the step must not run")


def test_folder_as_input(run):
    folder = run.path / "saved"
    folder.mkdir()
    (folder / "a").write_text("1")

    def status():
        step = run.step("report", settings={}, inputs={"saved": folder}, outputs=[run.report_json])
        if step.status() == "missing":
            step.begin()
            write_json(run.report_json, {})
            step.finish()
        return step.status()

    assert status() == "fresh"
    (folder / "a").rename(folder / "b")
    assert status() == "stale"


def test_missing_input_is_a_user_error(run):
    run.teacher_model.unlink()
    with pytest.raises(UserError, match=r"Can't read the input .*model.keras"):
        describe(run).begin()
    assert not run.search_shape.parent.exists()


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="`run_dir` must be a writable folder"):
        Run(tmp_path / "file").prepare()
    step = Run(tmp_path / "file" / "run").step("teacher", settings={}, outputs=[])
    with pytest.raises(UserError, match="`run_dir`"):
        step.begin()


def test_step_stays_inside_the_run(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(ValueError, match="`outputs` must lie inside"):
        run.step("search", settings={}, outputs=[tmp_path / "elsewhere"])
    with pytest.raises(ValueError, match="plain name"):
        run.step("../other", settings={}, outputs=[])


def test_a_network_saved_again_is_the_same(tmp_path):
    """But for the date that Keras writes into the file."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for name in ("first", "second", "third"):
        if name == "third":
            model.layers[0].bias.assign([1.0, 2.0])
        model.save(tmp_path / f"{name}.keras")
    with zipfile.ZipFile(tmp_path / "second.keras", "a") as archive:
        archive.comment = b"other bytes"
    first, second, third = (hash_content(tmp_path / f"{name}.keras") for name in ("first", "second", "third"))
    assert first == second != third


def test_results_that_changed_since_they_were_written_are_told(run):
    step = describe(run)
    complete(step)
    assert read_result(run.metrics("search")) == {"made": "now"}
    for content in ('{"made": "later"}', "[]"):
        run.metrics("search").write_text(content)
        with pytest.raises(UserError, match=r"metrics\.json was damaged or changed after the step `search`"):
            read_result(run.metrics("search"))


@pytest.mark.parametrize("change", [{"files": None}, {"settings": 1.5}, {"inputs": []}, {"digest": 3}])
def test_a_damaged_record_says_nothing(run, change):
    step = describe(run)
    complete(step)
    write_json(step.digest_path, read_json(step.digest_path) | change)
    assert read_record(step.digest_path) == {"settings": {}, "inputs": {}}
    assert step.differences() == ["digest.json: was damaged or changed by hand"]
    with pytest.raises(UserError, match="made from other settings or inputs"):
        step.begin()
    assert read_result(run.metrics("search")) == {"made": "now"}


def test_results_of_earlier_versions_are_read(run):
    step = describe(run)
    complete(step)
    record = read_json(step.digest_path)
    del record["files"]
    write_json(step.digest_path, record)
    run.metrics("search").write_text('{"made": "then"}')
    assert read_result(run.metrics("search")) == {"made": "then"}
    assert step.status() == "fresh"


def test_a_damaged_archive_counts_as_it_is(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}" * 1000)
    whole = hash_content(path)
    content = bytearray(path.read_bytes())
    content[:4] = b"xxxx"  # its directory is at the end, and still there
    path.write_bytes(content)
    assert zipfile.is_zipfile(path)
    assert hash_content(path) != whole
