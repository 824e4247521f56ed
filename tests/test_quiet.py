"""Messages that don't reach the user's terminal."""

import os

from tas_tf.quiet import without_notes

LISTED = """loc("here"): error: 'tf.Erfinv' op is neither a custom op nor a flex op
error: failed while converting: 'main':
Some ops in the model are custom ops
Custom ops: Erfinv
Details:
\ttf.Erfinv(tensor<?x4xf32>) -> (tensor<?x4xf32>)

"""


def test_notes_and_lists_of_the_converter_are_dropped_and_the_rest_passes(capfd):
    with without_notes():
        os.write(2, f"first\n\nI0000 00:00 reader.cc:83] note\n{LISTED}last\n".encode())
    assert capfd.readouterr().err == "first\n\nlast\n"
