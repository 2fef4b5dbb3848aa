"""Two-alternative trials for people: which trials are shown, and what answers mean.

Three kinds: *mate*, the reconstruction of the seen image against that of another image
by the same method; *methods*, two methods' reconstructions of the same image; *catch*,
the seen image itself against another one, which everybody who looks gets right. Pure
functions; `reporting.human_trials` makes the page.

References
----------
MindEye2, human trials (the seen image, its reconstruction, another reconstruction).
"""

import csv
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from minddiff_utils.core.errors import DataError, check_choice

__all__ = ["evaluate_answers", "page_of", "plan_trials"]

#: A rater with a smaller share of catch trials right is left out; unanswered ones count
#: as wrong.
LEAST_CAUGHT = 0.8
_SIDES = ("left", "right")
_COLUMNS = ["page", "rater", "trial", "answer"]


def plan_trials(
    images: Mapping[str, Sequence[int]], *, n: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return the trials in the order shown, with the side that is right.

    `images`: method -> the images that it reconstructed, of which fewer than two are a
    DataError; `n`: trials of each method, and of each pair of methods, fewer where
    there are fewer images; one catch trial for ten others, three at least. Columns
    trial (from 1), kind, method, seen, left, right, answer: `left` and `right` are
    "method/image", `answer` the side of the mate, or of the first method of a pair.
    """
    rows: list[tuple[str, str, int, str, str]] = []
    for method, ids in images.items():
        if len(ids) < 2:
            raise DataError(
                f"{method} has {len(ids)} images, but a trial needs another one to "
                "compare with: name a method with two images or more."
            )
        for seen in _some(ids, n, rng):
            other = _another(ids, seen, rng)
            rows.append(("mate", method, seen, f"{method}/{seen}", f"{method}/{other}"))
    for one, two in itertools.combinations(images, 2):
        for seen in _some(sorted({*images[one]} & {*images[two]}), n, rng):
            both = f"{one}/{seen}", f"{two}/{seen}"
            rows.append(("methods", f"{one} over {two}", seen, *both))
    every = sorted({i for ids in images.values() for i in ids})
    for seen in _some(every, max(3, len(rows) // 10), rng):
        other = _another(every, seen, rng)
        rows.append(("catch", "truth", seen, f"truth/{seen}", f"truth/{other}"))
    shown: list[tuple[object, ...]] = []
    for k in rng.permutation(len(rows)):
        kind, method, seen, first, second = rows[k]
        side = int(rng.integers(2))
        left, right = (first, second) if side == 0 else (second, first)
        shown.append((len(shown) + 1, kind, method, seen, left, right, _SIDES[side]))
    columns = ["trial", "kind", "method", "seen", "left", "right", "answer"]
    return pd.DataFrame(shown, columns=columns)


def _some(ids: Sequence[int], n: int, rng: np.random.Generator) -> list[int]:
    return [int(i) for i in rng.permutation(ids)[:n]]


def _another(ids: Sequence[int], seen: int, rng: np.random.Generator) -> int:
    return int(rng.choice([i for i in ids if i != seen]))


def page_of(trials: pd.DataFrame) -> str:
    """Return the name of a page, so that answers to another page are told apart."""
    return hashlib.sha256(trials.to_csv(index=False).encode()).hexdigest()[:8]


def evaluate_answers(trials: pd.DataFrame, texts: Mapping[str, str]) -> pd.DataFrame:
    """Return the share right by rater and method, with exact binomial interval and p.

    `trials`: from `plan_trials`; `texts`: file -> answers as the page gives them, lines
    of page, rater, trial, answer. Answers of another page, a line that is none, an
    answer twice, or none at all: DataError. Columns rater, kind, method, n, n_right,
    share (of a pair of methods that of the first one), ci_low, ci_high, p (two-sided,
    against 1/2), state: "counted", or why the rater is left out.
    """
    key, answers = trials.set_index("trial"), _read_answers(trials, texts)
    rows: list[dict[str, object]] = []
    for rater, given in answers.items():
        right = {t: said == key.loc[t, "answer"] for t, said in given.items()}
        catch = key.index[key["kind"] == "catch"]
        caught = sum(right.get(int(t), False) for t in catch)
        if caught < LEAST_CAUGHT * len(catch):
            state = f"left out: {caught} of {len(catch)} catch trials right"
            rows.append({"rater": rater, "state": state})
            continue
        asked = key[(key["kind"] != "catch") & key.index.isin(list(right))]
        for (kind, method), block in asked.groupby(["kind", "method"]):
            n, n_right = len(block), sum(right[int(t)] for t in block.index)
            test = stats.binomtest(n_right, n, 0.5)
            low, high = test.proportion_ci(0.95, method="exact")
            row = {"rater": rater, "kind": kind, "method": method, "n": n}
            row |= {"n_right": n_right, "share": n_right / n, "ci_low": low}
            rows.append(row | {"ci_high": high, "p": test.pvalue, "state": "counted"})
    columns = ["rater", "kind", "method", "n", "n_right", "share"]
    table = pd.DataFrame(rows).reindex(
        columns=[*columns, "ci_low", "ci_high", "p", "state"]
    )
    return table.astype({"n": "Int64", "n_right": "Int64"})


def _read_answers(
    trials: pd.DataFrame, texts: Mapping[str, str]
) -> dict[str, dict[int, str]]:
    """Return the answers by rater and trial."""
    page, known = page_of(trials), set(trials["trial"].tolist())
    answers: dict[str, dict[int, str]] = {}
    for where, (of_page, rater, number, answer) in _lines(texts):
        if of_page != page:
            raise DataError(
                f"{where} answers the page {of_page!r}, but this run's page is "
                f"{page!r}: give the answers to the page of this run."
            )
        if not number.isdecimal() or int(number) not in known:
            raise DataError(
                f"{where} names trial {number!r}, but the page has trials 1 to "
                f"{len(known)}: paste the text as the page gives it."
            )
        check_choice(answer, _SIDES, f"{where}: the answer")
        given = answers.setdefault(rater, {})
        if given.setdefault(int(number), answer) != answer:
            raise DataError(
                f"{where}: {rater} answers trial {number} twice, differently: give each"
                " rater's answers once, and each rater a name of their own."
            )
    if not answers:
        raise DataError(
            f"{', '.join(texts)} holds no answers: paste the text that the page shows"
            " at its end."
        )
    return answers


def _lines(texts: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield where each line of answers stands, and its four fields."""
    for name, text in texts.items():
        for number, fields in enumerate(csv.reader(text.splitlines()), 1):
            fields = [field.strip() for field in fields]
            if not any(fields) or fields == _COLUMNS:
                continue
            if len(fields) != len(_COLUMNS) or not all(fields):
                raise DataError(
                    f"{name}, line {number} is no line of page, rater, trial, answer: "
                    "paste the text as the page gives it."
                )
            yield f"{name}, line {number},", fields
