"""The whole way: what is made, what is skipped, what is refused, what is made again."""

import pytest

from trainers import pipeline


def test_x(command, tiny_flags, tmp_path):
    import time
    t=time.time(); o=command(pipeline, f"--run_dir={tmp_path}/run", *tiny_flags); print(o.code, o.out, o.err, time.time()-t, time.process_time())
    t=time.time(); o=command(pipeline, f"--run_dir={tmp_path}/run", *tiny_flags); print(o, time.time()-t)
