"""Takes the pictures of TensorBoard in docs/images: `python docs/tools/tensorboard.py RUN`, with a run's folder.

The pictures in the repository show this run:

    python -m trainers.pipeline --flagfile=flags/digits.cfg --searched=1 --search_epochs=12 --run_dir=runs/board
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from docs.tools.browser import browser, missing, screenshot, view

#: The tab of each picture.
_PICTURES = {"tensorboard.png": "custom_scalars", "tensorboard-shapes.png": "images"}
_SIZE = (1400, 1000)
# Seconds that TensorBoard may take to start, and its page to draw.
_START, _DRAW = 120, 60
#: Whether a tab shows something: a curve or a picture with pixels, in whatever shadow tree it lies.
_SHOWN = """
const inside = (node) => [...node.children, ...(node.shadowRoot ? node.shadowRoot.children : [])];
const walk = (node) => [node, ...inside(node).flatMap(walk)];
return walk(document.body).filter((one) =>
  (one.tagName === "IMG" && one.naturalWidth > 100) || (one.tagName === "path" && one.getTotalLength() > 50)).length;
"""


def main() -> None:
    """Writes the pictures of the run that the command line names."""
    run, *folder = map(Path, sys.argv[1:] or sys.exit(__doc__))
    if reason := missing():
        sys.exit(f"error: {reason}")
    if not (run / "logs").is_dir():
        sys.exit(f"error: there are no logs in {run}. Give the folder of a run.")
    take(run, *(folder or [ROOT / "docs" / "images"]))


def take(run: Path, folder: Path) -> list[Path]:
    """Takes a picture of each tab.

    Args:
        run: Folder of a run.
        folder: Folder to write to.

    Returns:
        The pictures.

    Raises:
        TimeoutError: TensorBoard doesn't start, or a tab shows nothing.
    """
    taken = []
    with serving(run / "logs") as url, browser() as driver:
        view(driver, _SIZE)
        for name, tab in _PICTURES.items():
            driver.get("about:blank")  # another fragment alone wouldn't load the page anew
            driver.get(f"{url}?darkMode=false#{tab}")
            _wait(lambda: driver.execute_script(_SHOWN) > 2, _DRAW, f"the tab {tab} shows nothing")
            time.sleep(2)  # curves move into place
            screenshot(driver, folder / name, height=_SIZE[1])
            taken.append(folder / name)
    return taken


@contextlib.contextmanager
def serving(logs: Path) -> Iterator[str]:
    """Runs TensorBoard on a free port and yields its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logs.name}", f"--port={port}", "--load_fast=false"]
    # The page shows the path that it was given.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=logs.parent, **quiet) as process:
        try:
            url = f"http://127.0.0.1:{port}/"
            _wait(lambda: _answers(f"{url}data/runs"), _START, "TensorBoard doesn't start")
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    """Whether a server knows runs already."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return len(response.read()) > 2
    except (urllib.error.URLError, ConnectionError):
        return False


def _wait(is_done, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > end:
            raise TimeoutError(f"{otherwise} after {seconds} s.")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
