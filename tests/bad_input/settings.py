"""What a notebook's parameters may have wrong, met as its second cell meets it."""

from typing import Any

from minddiff_utils.core.run import start

from .case import Act, Case
from .world import World


def starts(**parameters: Any) -> Act:
    def act(_: World) -> object:
        return start(**({"profile": "smoke"} | parameters))

    return act


CASES = {
    "a subject of another profile": Case(
        starts(subject=7), "not in profile", "use one of 1", names="subject 7"
    ),
    "no subject": Case(starts(subject=0), "not in", "use one of", names="subject 0"),
    "no profile": Case(
        starts(profile=""), "does not exist", "use one of", names="Profile ''"
    ),
    "numbers for names": Case(
        starts(overrides={1: 2}), "no key of a profile", "mend", names="override 1"
    ),
    "a text for a number": Case(
        starts(overrides={"data.sessions": "1"}),
        "must be 1 to 40, or all",
        "mend the override",
        names="data.sessions",
    ),
    "not a number": Case(
        starts(overrides={"stage2.paper.step": float("nan")}),
        "must be a finite number",
        "mend the override",
        names="stage2.paper.step",
    ),
    "nothing for a group": Case(
        starts(overrides={"data": None}),
        "a group of keys",
        "mend",
        names="data is None",
    ),
}
