"""Checks many networks from graph to TFLite file, and writes the results as docs/MODELS.md.

    python -m benchmarks.networks [--only=ResNet50,U-Net] [--work_dir=runs/networks] [--write=docs/MODELS.md]

Each network is newly built, with a small input. The script finds out what can be searched, and builds the students of
the smallest, the full and three random shapes: their multiply-adds, counted layer by layer, and their parameters,
counted by Keras, must be what the cost model says, and their outputs those of the supernet at that shape. The supernet
takes one weight step and one architecture step. All students are loaded and run in a process that can't import this
project, and one is converted to TFLite and run by LiteRT. Finished networks aren't checked again.

Networks of KerasHub are left out if it isn't installed: pip install --no-deps keras-hub regex tokenizers sentencepiece
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from benchmarks.networks.applications import APPLICATIONS
from benchmarks.networks.checks import NUM_RANDOM, Checked, check
from benchmarks.networks.hub import HUB, HUB_IS_MISSING
from benchmarks.networks.page import markdown
from benchmarks.networks.zoo import ZOO
from tas_tf.files import read_json, write_bytes, write_json


def main() -> None:
    options, networks = _parse(), {**APPLICATIONS, **HUB, **ZOO}
    names = options.only or list(networks)
    unknown = [name for name in names if name not in networks]
    if unknown:
        sys.exit(f"unknown networks: {', '.join(unknown)}")
    if HUB_IS_MISSING:
        print(HUB_IS_MISSING, flush=True)
    failed = []
    for name in names:
        path = _record(options, networks[name].slug)
        if not path.exists():
            print(f"{name} ...", flush=True)
            try:
                checked = check(networks[name], num_random=options.num_random)
            except (
                Exception
            ):  # any error: the remaining networks must still be checked, and the script fails at its end
                traceback.print_exc()
                failed.append(name)
                continue
            finally:
                keras.backend.clear_session()
            write_json(path, asdict(checked))
        print(f"{name}: {read_json(path)}", flush=True)
    if failed:
        sys.exit(f"{len(failed)} of {len(names)} networks failed: {', '.join(failed)}")
    if options.write:
        rows = [Checked(**read_json(_record(options, networks[name].slug))) for name in names]
        applications = [row for row in rows if row.name in APPLICATIONS]
        page = markdown(applications, [row for row in rows if row.name not in APPLICATIONS])
        write_bytes(options.write, page.encode())


def _record(options: argparse.Namespace, slug: str) -> Path:
    return Path(options.work_dir) / f"{slug}.json"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="comma-separated names; all by default")
    parser.add_argument("--num_random", type=int, default=NUM_RANDOM, help="random shapes of each network")
    parser.add_argument("--work_dir", default="runs/networks", help="folder for the results of finished networks")
    parser.add_argument("--write", help="path of the page to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
