"""Layers of two networks side by side."""

from tas_tf.report.layer_rows import layer_tables
from tests.report.pieces import layers


def report(teacher: dict, student: dict) -> dict:
    return {name: {"tflite": files} for name, files in (("teacher", teacher), ("student", student))}


def test_layers_of_one_network_alone_and_the_rest_last():
    teacher, student = layers(4.0), [one for one in layers(2.0) if one["name"] != "block"]
    student.insert(1, {"name": "projection", "operator": "CONV_2D", "bytes": 64, "milliseconds": 0.5})
    (table,) = layer_tables(report({"fp32": {"layers": teacher}}, {"fp32": {"layers": student}, "fp16": {}}))
    assert (table.format, table.timed) == ("fp32", True)
    rows = {row.name: (row.teacher_bytes, row.student_bytes, row.teacher_ms, row.student_ms) for row in table.rows}
    assert list(rows) == ["stem", "block", "top", "projection", "everything else"]
    assert rows["block"] == (36000, None, 4 / 9000, None)
    assert rows["projection"] == (None, 64, None, 0.5)
    assert rows["everything else"] == (500, 500, 0.1, 0.1)
    assert (table.most_bytes, table.most_ms) == (36000, 0.5)


def test_operators_of_one_layer_are_added_and_unknown_times_stay_so():
    twice = [*layers(1.0)[:1], *layers(1.0, timed=False)]
    (table,) = layer_tables(report({}, {"int8": {"layers": twice}}))
    stem = table.rows[0]
    assert (stem.name, stem.student_bytes, stem.student_ms, stem.teacher_bytes) == ("stem", 800, None, None)
    assert not table.timed


def test_reports_of_earlier_versions_have_none():
    assert layer_tables(report({"fp32": {"bytes": 1}}, {"fp32": {"bytes": 1, "layers": None}})) == []
