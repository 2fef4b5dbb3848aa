"""Figures have one number each, the same in notebooks, README and report."""

import json
import re
from pathlib import Path

import pytest

from minddiff_utils.core.places import project_root
from minddiff_utils.reporting.report_contents import FIGURES

NOTEBOOKS = sorted((project_root() / "notebooks").glob("0*.ipynb"))


def _captions(path: Path) -> dict[str, str]:
    """Return the words after each cell that shows a figure, by the figure's name."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    words = ["".join(cell["source"]) for cell in cells]
    shown = r"run\.show\([^\"]*\"(\w+)\"\)"
    return {
        name: next(w for c, w in zip(cells[k:], words[k:], strict=True)
                   if c["cell_type"] == "markdown")
        for k, text in enumerate(words)
        for name in re.findall(shown, text)
    }  # fmt: skip


def test_every_figure_has_a_number_of_its_own_and_f1_to_f9_are_there() -> None:
    numbers = [caption.number for caption in FIGURES.values()]
    assert len(set(numbers)) == len(numbers)
    assert {f"F{k}" for k in range(1, 10)} <= set(numbers)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_caption_in_a_notebook_has_the_number_of_the_report(path: Path) -> None:
    for name, words in _captions(path).items():
        said = re.match(r"\*\*Figure \d+(?: \((\w\d+)\))?[^*]*\*\*", words)
        if name in FIGURES:
            assert said is not None, (name, words[:60])
            assert said[1] == FIGURES[name].number, name
        elif said is not None:
            assert said[1] is None, name


def test_numbers_in_the_read_me_files_are_those_of_the_list() -> None:
    numbers = {caption.number: name for name, caption in FIGURES.items()}
    text = (project_root() / "figures" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([FS]\d+) \| `(\w+)` \|", text, re.MULTILINE)
    assert dict(rows) == numbers
