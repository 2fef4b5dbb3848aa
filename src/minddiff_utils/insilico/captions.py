"""Five captions of a scene, as people write them for COCO: varied, none complete.

They name the kind of setting, objects, counts, actions and now and then a colour. They
leave unsaid where things are, how large, and what the place looks like.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minddiff_utils.insilico.categories import VOCABULARY

__all__ = ["Group", "captions"]

_COUNTS = ("", "a", "two", "three")
_OPENINGS = ("a photo of", "a picture of", "an image of", "a close up of", "")
_JOINS = ("and", "next to", "beside", "with", "near")


class Group(NamedTuple):
    """Objects of one category in one state: what a caption speaks of at once."""

    category: str
    n: int
    moving: bool
    colour: str | None


def captions(
    rng: np.random.Generator, groups: Sequence[Group], phrases: Sequence[str]
) -> tuple[str, str, str, str, str]:
    """Write five captions.

    Parameters
    ----------
    rng : numpy Generator
        Draws the words.
    groups : sequence of Group
        The largest first.
    phrases : sequence of str
        Ways to say where it is.
    """

    def where() -> str:
        return str(rng.choice(phrases))

    everything = _list(rng, groups)
    first, *rest = groups
    verb = "is" if first.n == 1 else "are"
    beside = f" {rng.choice(_JOINS[1:])} {_list(rng, rest)}" if rest else ""
    return (
        f"{_name(rng, first)} {_action(rng, first)}{beside} {where()}",
        f"there {verb} {everything} {where()}",
        f"{rng.choice(_OPENINGS)} {_list(rng, groups, coloured=True)}".strip(),
        f"{_name(rng, first, coloured=True)} {_action(rng, first)}{beside}",
        f"{_name(rng, first)} {_action(rng, first)} {where()}",
    )


def _action(rng: np.random.Generator, group: Group) -> str:
    words = VOCABULARY[group.category]
    return str(rng.choice(words.moving if group.moving else words.still))


def _name(rng: np.random.Generator, group: Group, *, coloured: bool = False) -> str:
    names = VOCABULARY[group.category].names
    common = rng.random() < 0.7
    name = names[0 if common else int(rng.integers(len(names)))][group.n > 1]
    if coloured and group.colour is not None and rng.random() < 0.7:
        name = f"{group.colour} {name}"
    count = _COUNTS[group.n]
    if group.n == 1 and name[0] in "aeiou":
        count = "an"
    return f"{count} {name}"


def _list(
    rng: np.random.Generator, groups: Sequence[Group], *, coloured: bool = False
) -> str:
    names = [_name(rng, group, coloured=coloured) for group in groups]
    if len(names) < 3:
        return f" {rng.choice(_JOINS)} ".join(names)
    return f"{names[0]} {names[1]} and {names[2]}"
