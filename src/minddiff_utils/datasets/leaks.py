"""One picture under two ids: rows on both sides of a split that are one image.

`preprocessing.leak_check` compares prepared images; `check` what files say.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from minddiff_utils.core.types import IntArray, Mask

__all__ = ["caption_keys", "leaking_words", "pairs_across"]

#: Two rows that are one image.
Pair = tuple[int, int]

#: Pairs that a sentence names.
_NAMED = 5


def pairs_across(keys: Iterable[Hashable], one: Mask, other: Mask) -> list[Pair]:
    """Return rows of `one` and `other` with the same key, a pair for each of `one`.

    >>> pairs_across("abca", np.arange(4) < 1, np.arange(4) > 0)
    [(0, 3)]
    """
    known = list(keys)
    first = {known[row]: int(row) for row in np.flatnonzero(other)[::-1]}
    rows = np.flatnonzero(one).tolist()
    return [(row, first[known[row]]) for row in rows if known[row] in first]


def caption_keys(captions: Iterable[Sequence[str]]) -> list[Hashable]:
    """Return a key for each image's captions, the same where they are the same texts.

    One text for all of an image's captions, or none, says nothing: it is like no other.

    >>> caption_keys([["a", "b"], ["b", "a"], ["a", "a"], []])
    [('a', 'b'), ('a', 'b'), 2, 3]
    """
    sets = [tuple(sorted(set(map(str, texts)))) for texts in captions]
    return [texts if len(texts) > 1 else row for row, texts in enumerate(sets)]


def leaking_words(nsd_id: IntArray, pairs: Sequence[Sequence[int]]) -> str:
    """Return words that name rows or pairs of rows by `nsd_id`, a few of many.

    >>> leaking_words(np.array([7, 8, 9]), [(0, 2), (1,)])
    '7 = 9, 8'
    """
    named = [" = ".join(str(nsd_id[row]) for row in rows) for rows in pairs[:_NAMED]]
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return ", ".join(named) + more
