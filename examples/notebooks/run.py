"""Run the notebooks and keep their outputs, without times and paths of this machine.

python examples/notebooks/run.py [NAME.ipynb ...]
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in order, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name=KERNEL["name"],
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}


def main() -> None:
    names = sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb"))
    for name in names:
        started = time.perf_counter()
        notebook = nbformat.read(FOLDER / name, as_version=4)
        execute(notebook)
        nbformat.write(notebook, FOLDER / name)
        size = (FOLDER / name).stat().st_size / 1000
        print(f"{name}: {time.perf_counter() - started:.0f} s, {size:.0f} kB")


if __name__ == "__main__":
    main()
