"""What a notebook's file may have wrong; `test_runner` tries the parameters cell."""

from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.pipeline.graph import make_plan

from .case import Case
from .world import (
    Damage,
    World,
    a_dangling_link,
    a_folder,
    a_loop,
    as_json,
    cut,
    gone,
    holds,
    words,
)

PATH = "notebooks/02_decoding.ipynb"


def plan(world: World) -> object:
    """Make the plan of a run, as `minddiff run` does before anything runs."""
    tree = Tree(world.root, "smoke", world.nsd)
    return make_plan(load_profile("smoke"), tree, {}, source=world.root / "notebooks")


def _case(found: str, remedy: str, damage: Damage) -> Case:
    return Case(plan, found, remedy, PATH, damage)


CASES = {
    "gone": _case("is missing", "restore the notebook", gone),
    "a folder": _case("is missing", "restore the notebook", a_folder),
    "a loop": _case("is missing", "restore the notebook", a_loop),
    "a link to nothing": _case("is missing", "restore", a_dangling_link),
    "cut short": _case("no notebook", "restore", cut),
    "empty": _case("is empty", "restore", holds("")),
    "not UTF-8": _case("no notebook", "restore", holds(b"\xff\xfe{}")),
    "a list": _case("no notebook", "restore", holds("[1]")),
    "without cells": _case("no notebook", "restore", holds('{"nbformat": 4}')),
    "of the future": _case(
        "no notebook", "restore", words('"nbformat": 4', '"nbformat": 99')
    ),
    "cells that are none": _case(
        "no notebook", "restore", as_json(lambda book: book | {"cells": [1, 2]})
    ),
    "without the parameters cell": _case(
        "0 cells tagged", "tag the cell", words('"parameters"', '"other"')
    ),
    "without the parameter subject": _case(
        "no parameter 'subject'", "it has profile", words("subject: int", "who: int")
    ),
    "a subject in words": _case(
        "must be str, not int",
        "parameter 'subject'",
        words("subject: int = 1", "subject: str = '1'"),
    ),
    "a parameter without a value": _case(
        "must be a literal", "replaced", words("subject: int = 1", "subject: int")
    ),
    "a parameter that is computed": _case(
        "must be a literal",
        "replaced",
        words("subject: int = 1", "subject: int = 1 + 1 * x"),
    ),
    "a cell that is no Python": _case(
        "only NAME = literal", "mend", words("subject: int = 1", "subject = = 1")
    ),
}
