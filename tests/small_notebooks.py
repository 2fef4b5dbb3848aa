"""Notebooks of a few cells in the place of all that a run executes."""

from collections.abc import Callable
from pathlib import Path

import nbformat

from minddiff_utils.core.places import notebook_path
from minddiff_utils.pipeline.graph import GRAPH, Notebook

PARAMETERS = 'profile: str = "smoke"\noverrides: dict = {}'


def notebook(*cells: str, tagged: int = 1) -> nbformat.NotebookNode:
    """Return a notebook whose first cells hold its parameters."""
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(metadata={"kernelspec": spec})
    made.cells = [nbformat.v4.new_code_cell(c) for c in cells]
    for cell in made.cells[:tagged]:
        cell.metadata["tags"] = ["parameters"]
    return made


def write_notebooks(source: Path, body: Callable[[Notebook], str]) -> None:
    """Write every notebook of the graph with the cell that `body` gives for it."""
    for entry in GRAPH:
        more = "\nsubject: int = 1" if entry.per_subject else ""
        more += '\nshard: str = "0/1"' if entry.per_shard else ""
        path = notebook_path(entry.stem, source)
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(PARAMETERS + more, body(entry)), path)
