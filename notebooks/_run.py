"""Run the notebooks and keep what they print: `python notebooks/_run.py [NAME...]`.

Only what is stable is kept: no times, no counters of the machine, the same ids every time.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook after all of its cells, run in `folder`, without real candles and on one thread.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        When a cell fails; the message holds the cell and the error.
    """
    notebook = nbformat.read(path, as_version=4)
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER), "CPPN_BT_REAL_MARKET": ""}
    env = {**os.environ, **quiet}
    where = {"metadata": {"path": folder}}
    patience = {"timeout": 300, "startup_timeout": 300}
    client = NotebookClient(notebook, kernel_name="python3", resources=where, **patience)
    client.execute(env=env)  # the kernel's ports are on 127.0.0.1
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook without what differs from run to run."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
                output.get("data", {}).pop("text/html", None)
                if "execution_count" in output or output.output_type == "execute_result":
                    output.execution_count = None
    return notebook


if __name__ == "__main__":
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as work:
            nbformat.write(tidy(executed(path, Path(work))), path)
        print(f"{name}: {path.stat().st_size // 1024} KiB")
