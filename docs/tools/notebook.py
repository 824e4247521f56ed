"""Makes examples/compress.ipynb from examples/compress.py, and runs it.

    python docs/tools/notebook.py

In the program, `# %%` begins a cell of code, and `# %% [markdown]` one of text.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "compress.py"
NOTEBOOK = PROGRAM.with_suffix(".ipynb")
_CELL = r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)"


def to_notebook(program: str) -> nbformat.NotebookNode:
    r"""Turns the text of a program into a notebook without outputs.

    Args:
        program: Text in cells.

    Example:
        >>> [cell.source for cell in to_notebook("# %% [markdown]\n# # Title\n\n# %%\nx = 1\n").cells]
        ['# Title', 'x = 1']
    """
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, (kind, text) in enumerate(re.findall(_CELL, program, re.MULTILINE | re.DOTALL)):
        if kind:
            cell = nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE))
        else:
            cell = nbformat.v4.new_code_cell(text.strip())
        cell.id = f"cell-{number}"  # by default random, and so another one each time
        notebook.cells.append(cell)
    return notebook


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs a notebook in a folder, and keeps what it shows, without messages of libraries.

    Args:
        notebook: Notebook as `to_notebook` returns it. It is changed.
        folder: Folder that the notebook writes to.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(folder)}}).execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which would change in each run
        cell["outputs"] = [one for one in cell.get("outputs", ()) if one.get("name") != "stderr"]
        if cell.cell_type == "markdown":
            del cell["outputs"]
    return notebook


def main() -> None:
    """Writes the notebook with its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = run(to_notebook(PROGRAM.read_text(encoding="utf-8")), Path(folder))
    notebook.metadata.pop("language_info", None)  # the version of Python
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
