import pytest

from tas_tf.report.report import build_report
from tas_tf.report.speed import OVERHEAD, Speed, compare_speed, explain, operator_cells, speed_cells


def operator(name, milliseconds, share, count=1):
    return {"name": name, "count": count, "milliseconds": milliseconds, "share": share}


TEACHER = [operator("Convolution", 3.0, 0.75), operator("SOFTMAX", 0.6, 0.15), operator("Mean", 0.4, 0.1)]
STUDENT = [
    operator("Convolution", 1.5, 0.6),
    operator("Fully Connected", 0.988, 0.3952),
    operator("Add", 0.012, 0.0048),
]


def artefact(size, latency, operators=None):
    return {"accuracy": 0.9, "bytes": size, "latency_ms": latency, "latency_spread_ms": 0.1, "operators": operators}


def report_of(student, teacher, *, macs=(40e6, 20e6)):
    """A report of networks of some multiply-adds, their artefacts by format."""
    teacher_macs, student_macs = macs
    return build_report(
        teacher={"accuracy": 0.9, "macs": teacher_macs, "params": 1},
        student={"accuracy": 0.9, "macs": student_macs, "params": 1},
        export={**student, "teacher": teacher},
    )


def compare(student_ms, teacher_ms=2.0, **options):
    (speed,) = compare_speed(
        report_of({"fp32": artefact(300, student_ms)}, {"fp32": artefact(1200, teacher_ms)}, **options)
    )
    return speed


def test_factors_are_teacher_by_student():
    speed = compare(0.8)
    assert speed == Speed(
        format="fp32",
        speedup=2.5,
        macs_reduction=2.0,
        size_reduction=4.0,
        falls_short=False,
        latency_ms=0.8,
        seen_ms=0,
        operators=[],
        why="LiteRT gives no profile of the operators of both networks, which would tell why.",
    )
    assert speed_cells(speed) == ["fp32.tflite", "2.5x", "2x", "4x"]


@pytest.mark.parametrize(
    ("student_ms", "falls_short"),
    [(0.5, False), (1.0, False), (2 / 1.81, False), (2 / 1.79, True), (2.0, True), (5.0, True)],
)
def test_a_tenth_below_the_reduction_falls_short(student_ms, falls_short):
    assert compare(student_ms).falls_short is falls_short


def test_a_slower_student_of_the_same_cost_falls_short():
    assert compare(2.1, macs=(40e6, 40e6)).falls_short is False
    assert compare(2.3, macs=(40e6, 40e6)).falls_short is True


def test_what_nobody_measured_is_no_reproach():
    for speed in (
        compare(None),
        compare(1.9, teacher_ms=None),
        compare(1.9, macs=(40e6, None)),
        compare(1.9, macs=(None, 20e6)),
    ):
        assert speed.falls_short is False
        assert "-" in speed_cells(speed)
    assert compare(None).speedup is None
    assert compare(1.9, macs=(40e6, None)).macs_reduction is None


def test_formats_that_both_networks_have_and_no_saved_model():
    own = {format: artefact(100, 1.0) for format in ("saved_model", "int8", "fp32", "dynamic")}
    others = {format: artefact(200, 3.0) for format in ("saved_model", "fp32", "fp16", "int8")}
    speeds = compare_speed(report_of(own, others))
    assert {speed.format for speed in speeds} == {"fp32", "int8"}
    assert all(speed.speedup == 3.0 for speed in speeds)


def test_a_report_without_exports_has_no_speeds():
    assert compare_speed(build_report()) == []
    assert compare_speed(report_of({"fp32": artefact(1, 1.0)}, {})) == []


@pytest.fixture
def slow():
    """A student that is hardly faster, with the times of operators."""
    (speed,) = compare_speed(report_of({"int8": artefact(1, 2.75, STUDENT)}, {"int8": artefact(2, 4.4, TEACHER)}))
    return speed


def test_operators_are_paired_by_name(slow):
    # What takes less than half a percent is left out.
    assert [(pair.name, pair.teacher_ms, pair.student_ms, pair.share) for pair in slow.operators] == [
        ("Convolution", 3.0, 1.5, 0.6),
        ("Fully Connected", None, 0.988, 0.3952),
    ]
    assert slow.seen_ms == pytest.approx(2.5)
    assert [operator_cells(pair) for pair in slow.operators] == [
        ["Convolution", "3 ms", "1.5 ms", "60 %"],
        ["Fully Connected", "-", "0.988 ms", "40 %"],
    ]


def test_explanation_has_factors_and_operators(slow):
    assert slow.falls_short
    text = explain(slow)
    assert "\n" not in text
    for part in ("int8", "1.6x", "2x", "2.75 ms", "2.5 ms", "Convolution 1.5 ms (teacher 3 ms)"):
        assert part in text
    assert "Fully Connected 0.988 ms (teacher -)" in text
    assert text.index("Convolution") < text.index("Fully Connected")


@pytest.mark.parametrize(("latency", "overhead"), [(5.1, True), (4.95, False)])
def test_a_call_that_takes_twice_as_long_as_its_operators_is_mostly_overhead(latency, overhead):
    # Operators take 2.5 ms.
    (speed,) = compare_speed(report_of({"int8": artefact(1, latency, STUDENT)}, {"int8": artefact(2, 8.7, TEACHER)}))
    text = explain(speed)
    assert ("overhead" in text) is overhead
    assert "Convolution 1.5 ms (teacher 3 ms)" in text


def test_explanation_lists_the_most_expensive_alone():
    many = [operator(f"Kind{number}", 1.0, 0.1) for number in range(10)]
    (speed,) = compare_speed(report_of({"fp32": artefact(1, 10.0, many)}, {"fp32": artefact(1, 10.0, many)}))
    assert len(speed.operators) == 10
    text = explain(speed)
    assert "Kind0" in text
    assert "Kind9" not in text


@pytest.mark.parametrize("operators", [None, []])
def test_without_a_profile_the_explanation_says_so(operators):
    (speed,) = compare_speed(report_of({"fp32": artefact(1, 2.0, operators)}, {"fp32": artefact(1, 2.0, TEACHER)}))
    assert list(speed.operators) == []
    assert speed.seen_ms == 0
    assert "no profile" in explain(speed)


def test_a_teacher_without_a_profile_leaves_the_students():
    (speed,) = compare_speed(report_of({"fp32": artefact(1, 2.0, STUDENT)}, {"fp32": artefact(1, 2.0)}))
    assert [pair.teacher_ms for pair in speed.operators] == [None, None]


def why(student, teacher, *, latencies=(2.0, 4.0), macs=(40e6, 20e6)):
    student_ms, teacher_ms = latencies
    report = report_of(
        {"fp32": artefact(1, student_ms, student)}, {"fp32": artefact(1, teacher_ms, teacher)}, macs=macs
    )
    (speed,) = compare_speed(report)
    return speed.why


def test_a_speed_up_as_large_as_the_reduction_needs_no_reason():
    assert why(STUDENT, TEACHER) == ""
    assert explain(compare(0.95)) == "fp32: 2.11x faster with 2x fewer MACs."


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ([operator("Convolution", 1.0, 0.5), operator("SOFTMAX", 1.0, 0.5)], "50 % of the operators' time goes to op"),
        (
            [operator("Convolution", 1.4, 0.7), operator("Add", 0.6, 0.3)],
            "30 % of the operators' time goes to operators w",
        ),
        (
            [operator("Convolution", 2.0, 1.0)],
            "Convolutions and dense layers are 1.5 times faster: kernels compute 4 to",
        ),
        ([operator("Convolution", 0.5, 1.0)], OVERHEAD),
    ],
)
def test_reasons_of_a_student_that_is_slower_than_its_multiply_adds(student, reason):
    text = why(student, TEACHER, latencies=(3.0, 4.4))
    assert reason in text
    assert ("XNNPACK doesn't take: SOFTMAX" in text) == ("SOFTMAX" in str(student))


def test_reasons_of_a_student_that_is_faster_than_its_multiply_adds():
    teacher = [operator("Convolution", 3.0, 0.75, count=10), operator("Add", 1.0, 0.25, count=4)]
    student = [operator("Convolution", 1.5, 1.0, count=5)]
    text = why(student, teacher, latencies=(1.6, 4.0))
    assert text == (
        "It has 5 operators instead of 14: without them, their own cost and the memory that they read and write are "
        "saved too."
    )
    few = [operator("Convolution", 1.0, 1.0, count=10), operator("Add", 0.3, 0.3, count=4)]
    assert why(few, teacher, latencies=(1.4, 4.0)).startswith("Convolutions and dense layers are 3 times faster")


def test_a_difference_without_a_cause_in_the_profile_says_so():
    same = [operator("Convolution", 2.0, 1.0, count=3)]
    assert "doesn't tell why" in why(same, [operator("Convolution", 4.0, 1.0, count=3)], latencies=(3.0, 4.0))


@pytest.mark.parametrize(
    ("name", "has_products"),
    [
        ("Convolution (NHWC, F32) IGEMM", True),
        ("Batch Matrix Multiply (NC, F32) GEMM", True),
        ("BATCH_MATMUL", True),
        ("DEPTHWISE_CONV_2D", True),
        ("CONV_2D", True),
        ("Convert (NC, F32, QD8)", False),
    ],
)
def test_operators_without_multiply_adds(name, has_products):
    text = why([operator("Convolution", 1.4, 0.7), operator(name, 0.6, 0.3)], TEACHER, latencies=(3.0, 4.4))
    assert ("dense layers are 1.5 times faster" in text) is has_products
    assert ("goes to operators without multiply-adds" in text) is not has_products
