"""NSD-imagery: 18 stimuli that were seen, attended to, and imagined from a letter.

Six simple stimuli (A), six complex ones (B) and six concepts (C), each eight times in a
run of 48 trials. Seen ones have 8 repeats, imagined ones 16, from two runs. In a run of
attention each trial has two betas, whose parts in the trial no public code settles:
both are averaged, and rows of attention say so.

References
----------
Kneeland, R. et al. (2025). NSD-Imagery. CVPR, arXiv 2506.06898.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.images import resize
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.further_tests.layout import (
    CONCEPTS,
    N_TRIALS_RUN,
    PICTURES,
    RUNS,
    Name,
    Run,
)
from minddiff_utils.datasets.further_tests.test_set import (
    FurtherTrials,
    Stimuli,
    file_of,
    middle_square,
)
from minddiff_utils.datasets.nsd.formats import guard, wrong
from minddiff_utils.datasets.nsd.layout import N_SHARED
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = ["Imagery"]

#: Letters of the stimuli by set; no two stimuli have one.
_LETTERS = {name: tuple(known) for name, known in {**PICTURES, "C": CONCEPTS}.items()}
_NUMBER = {
    letter: number
    for number, letter in enumerate(
        one for letters in _LETTERS.values() for one in letters
    )
}


@dataclass(frozen=True)
class Imagery:
    """NSD-imagery in NSD's tree."""

    tree: NsdTree
    name: Name = "imagery"

    def trials(self, subject: int) -> FurtherTrials:
        """Return stimulus and task of each beta, run by run."""
        stimulus, condition, block, notes = [], [], [], list[str]()
        for number, run in enumerate(RUNS):
            seen = self._run(subject, run)
            if seen is None:
                notes.append(
                    f"Trials of {run.name} name other conditions than the letters of "
                    "their stimuli and are left out."
                )
                seen = np.full(N_TRIALS_RUN, -1)
            stimulus.append(np.repeat(seen, run.n_betas))
            condition += [run.task] * len(stimulus[-1])
            block += [number] * len(stimulus[-1])
        notes.append(
            "A trial of attention has two betas, which are averaged: public code does "
            "not settle what was on the screen in each."
        )
        return FurtherTrials(
            np.concatenate(stimulus),
            np.array(condition, "<U9"),
            np.array(block, np.int64),
            tuple(notes),
        )

    def _run(self, subject: int, run: Run) -> IntArray | None:
        """Return the stimuli of a run's trials; None of attention with other names."""
        path = file_of(self, "run", subject, run=run.name)
        with guard(path, "Trials of a run"):
            table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
        lacking = [name for name in ("TRIAL", "CONDITION") if name not in table]
        if lacking:
            held = ", ".join(map(str, table.columns))[:200]
            raise wrong(path, f"the columns {held}", f"a column {lacking[0]}")
        number = pd.to_numeric(table["TRIAL"], errors="coerce")
        if sorted(number.dropna().tolist()) != list(range(1, N_TRIALS_RUN + 1)):
            found = f"{len(table)} trials, or other numbers of them"
            raise wrong(path, found, f"TRIAL 1 to {N_TRIALS_RUN}, once each,")
        shown = table["CONDITION"].iloc[np.argsort(number)]
        letters = _LETTERS[run.letter]
        counts = shown.value_counts()
        expected = dict.fromkeys(letters, N_TRIALS_RUN // len(letters))
        if counts.to_dict() != expected:
            if run.task == "attention" and set(counts.index).isdisjoint(letters):
                return None
            odd = sorted(set(counts.index) - set(letters))
            found = f"the condition {odd[0]!r}" if odd else "unequal conditions"
            each = N_TRIALS_RUN // len(letters)
            raise wrong(path, found, f"{', '.join(letters)}, {each} times each,")
        return np.array([_NUMBER[one] for one in shown], np.int64)

    def stimuli(self) -> Stimuli:
        """Return names and sets: A simple, B complex, C concepts."""
        names = (*PICTURES["A"].values(), *PICTURES["B"].values(), *CONCEPTS.values())
        group = np.repeat(["A", "B", "C"], [len(x) for x in _LETTERS.values()])
        return Stimuli(names, group, group != "C")

    def pictures(self, subject: int, size: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Return the pictures of A and B, their middle square at `size` px."""
        return {
            _NUMBER[letter]: _read_picture(
                file_of(self, f"pictures {name}", subject, picture=picture), size
            )
            for name, known in PICTURES.items()
            for letter, picture in known.items()
        }

    def check_pictures(self, subject: int) -> None:
        """Read the pictures, which are few."""
        self.pictures(subject, 1)

    def captions(self, n_captions: int) -> Mapping[int, tuple[str, ...]]:
        """Return COCO's captions of NSD's pictures in B, and the words of C.

        Raises
        ------
        DataError
            A picture of B is not the shared image of NSD that its name says.
        """
        shared = self.tree.design().images[0, :N_SHARED]
        found: dict[int, tuple[str, ...]] = {}
        for letter, picture in PICTURES["B"].items():
            place, nsd_id = int(picture[6:10]), int(picture[14:19]) - 1
            if place == 0:  # no picture of NSD
                continue
            if shared[place - 1] != nsd_id:
                raise DataError(
                    f"{picture} names image {nsd_id + 1} as shared image {place}, but "
                    f"nsd_expdesign.mat has {shared[place - 1] + 1} there: use the two "
                    "of one release."
                )
            rows = self.tree.captions(np.array([nsd_id]), n_captions)
            found[_NUMBER[letter]] = tuple(map(str, rows[0]))
        return found | {_NUMBER[one]: (word,) for one, word in CONCEPTS.items()}


def _read_picture(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """Return a picture, (size, size, 3); grey ones in three channels."""
    with guard(path, "Picture"), Image.open(path) as picture:
        if picture.mode not in ("RGB", "L"):
            raise wrong(path, f"a picture of mode {picture.mode}", "RGB or grey")
        pixels = np.asarray(picture.convert("RGB"))
    square: npt.NDArray[np.uint8] = resize(middle_square(pixels[None]), size)[0]
    return square
