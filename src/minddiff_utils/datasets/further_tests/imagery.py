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
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.images import resize
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.further_tests import test_set
from minddiff_utils.datasets.further_tests.layout import PICTURES, RUNS, Name, Run
from minddiff_utils.datasets.nsd.layout import N_SHARED
from minddiff_utils.datasets.nsd.publisher import NSD

__all__ = ["Imagery"]

#: Trials of each run.
_N_TRIALS = 48
#: Letter -> word of the concepts (C), of which each has many pictures.
_CONCEPTS = dict(S="stripes", Z="zebra", M="mammal", Y="yellow", N="banana", F="fruit")
#: By set: letter -> name. No two stimuli have one letter; numbers go by their order.
_NAMES = {**PICTURES, "C": _CONCEPTS}
_LETTERS = [letter for names in _NAMES.values() for letter in names]
_NUMBER = {letter: number for number, letter in enumerate(_LETTERS)}


@dataclass(frozen=True)
class Imagery(test_set.InNsd):
    """NSD-imagery in NSD's tree."""

    name: ClassVar[Name] = "imagery"

    def trials(self, subject: int) -> test_set.FurtherTrials:
        """Return stimulus and task of each beta, run by run."""
        stimulus, notes = [], list[str]()
        for run in RUNS:
            seen = self._run(subject, run)
            if seen is None:
                notes.append(
                    f"Trials of {run.name} name other conditions than the letters of "
                    "their stimuli and are left out."
                )
                seen = np.full(_N_TRIALS, -1)
            stimulus.append(np.repeat(seen, run.n_betas))
        notes.append(
            "A trial of attention has two betas, which are averaged: public code does "
            "not settle what was on the screen in each."
        )
        n_betas = [len(one) for one in stimulus]
        condition = np.repeat(np.array([run.task for run in RUNS], "<U9"), n_betas)
        block = np.repeat(np.arange(len(RUNS)), n_betas)
        every = np.concatenate(stimulus)
        return test_set.FurtherTrials(every, condition, block, tuple(notes))

    def _run(self, subject: int, run: Run) -> IntArray | None:
        """Return the stimuli of a run's trials; None of attention with other names."""
        path = self.file("run", subject, run=run.name)
        table = NSD.text(path, "Trials of a run", ("TRIAL", "CONDITION"), "\t")
        number = pd.to_numeric(table["TRIAL"], errors="coerce")
        if sorted(number.dropna().tolist()) != list(range(1, _N_TRIALS + 1)):
            found = f"{len(table)} trials, or other numbers of them"
            raise NSD.wrong(path, found, f"TRIAL 1 to {_N_TRIALS}, once each,")
        shown = table["CONDITION"].iloc[np.argsort(number)]
        letters, counts = _NAMES[run.letter], shown.value_counts()
        each = _N_TRIALS // len(letters)
        if counts.to_dict() != dict.fromkeys(letters, each):
            if run.task == "attention" and set(counts.index).isdisjoint(letters):
                return None
            odd = sorted(set(counts.index) - set(letters))
            found = f"the condition {odd[0]!r}" if odd else "unequal conditions"
            raise NSD.wrong(path, found, f"{', '.join(letters)}, {each} times each,")
        return np.array([_NUMBER[one] for one in shown], np.int64)

    def stimuli(self) -> test_set.Stimuli:
        """Return names and sets: A simple, B complex, C concepts."""
        names = tuple(one for known in _NAMES.values() for one in known.values())
        group = np.repeat(list(_NAMES), [len(known) for known in _NAMES.values()])
        return test_set.Stimuli(names, group, group != "C")

    def pictures(self, subject: int, size: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Return the pictures of A and B, their middle square at `size` px.

        Concepts have none; grey pictures get three channels.
        """
        found = dict[int, npt.NDArray[np.uint8]]()
        for name, known in PICTURES.items():
            for letter, picture in known.items():
                path = self.file(f"pictures {name}", subject, picture=picture)
                with NSD.reading(path, "Picture"), Image.open(path) as stored:
                    if stored.mode not in ("RGB", "L"):
                        mode = f"a picture of mode {stored.mode}"
                        raise NSD.wrong(path, mode, "RGB or grey")
                    pixels = np.asarray(stored.convert("RGB"))[None]
                found[_NUMBER[letter]] = resize(test_set.middle_square(pixels), size)[0]
        return found

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
        return found | {_NUMBER[one]: (word,) for one, word in _CONCEPTS.items()}
