"""The figures of the report: name, number and caption, said once.

F1 to F9 are the figures that the paper has; S1 and on are further ones. Notebooks
write the number behind their own ("**Figure 2 (F6).**"), which the tests check. A
caption says what is drawn, never what came out. They stand in `report/captions.csv`.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FIGURES", "Caption"]


@dataclass(frozen=True)
class Caption:
    """A figure's number, "F1" to "F9" or "S1" and on, and what it shows.

    `{subject}` in `words` stands for the subject whose figure is in the report;
    `each_subject`: each has its own, in files `<name>_subj01.png` and so on.
    """

    number: str
    words: str
    each_subject: bool = False

    def file_name(self, name: str, subject: int) -> str:
        """Return the name of the figure's file, without its ending."""
        return f"{name}_subj{subject:02d}" if self.each_subject else name


def _read() -> Iterator[tuple[str, Caption]]:
    path = Path(__file__).parent / "report" / "captions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            each_subject = row["each_subject"] == "yes"
            yield row["name"], Caption(row["number"], row["words"], each_subject)


#: Name of the file -> number and caption.
FIGURES = dict(_read())
