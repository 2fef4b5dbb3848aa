"""A cell of a notebook may be run again at any time and finds what it found before."""

import ast

import nbformat
import pytest

from minddiff_utils.core.places import notebook_path
from minddiff_utils.core.reach import bound_by
from minddiff_utils.pipeline.graph import GRAPH


def _written(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds, and those whose content it changes."""
    found = set(bound_by(statement))
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            inner: ast.expr = node
            while isinstance(inner, (ast.Attribute, ast.Subscript)):
                inner = inner.value
            if isinstance(inner, ast.Name) and not isinstance(node.ctx, ast.Load):
                found.add(inner.id)
    return found


def _read_first(statement: ast.stmt) -> set[str]:
    """Return the names that a statement reads from what was there before it."""
    nodes = list(ast.walk(statement))
    loops = [n.target for n in nodes if isinstance(n, ast.comprehension)]
    own = {n.id for t in loops for n in ast.walk(t) if isinstance(n, ast.Name)}
    own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    names = [n for n in nodes if isinstance(n, ast.Name)]
    reads = {n.id for n in names if isinstance(n.ctx, ast.Load)} - own
    if isinstance(statement, ast.AugAssign):
        return reads | _written(statement)
    if isinstance(statement, (ast.For, ast.If, ast.With)):
        return reads - _written(statement)
    return reads


@pytest.mark.parametrize("stem", [notebook.stem for notebook in GRAPH])
def test_what_a_cell_reads_from_others_is_written_by_one_cell_alone(stem: str) -> None:
    cells = nbformat.read(notebook_path(stem), as_version=4).cells
    read, written = dict[int, set[str]](), dict[int, set[str]]()
    for number, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        read[number], written[number] = set(), set()
        for statement in ast.parse(cell.source).body:
            read[number] |= _read_first(statement) - written[number]
            written[number] |= _written(statement)
    for number, names in read.items():
        for name in names:
            writers = [n for n, found in written.items() if name in found]
            assert len(writers) <= 1, f"cell {number}: {name} of cells {writers}"
            assert writers in ([], [n for n in writers if n < number]), name
