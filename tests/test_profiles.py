"""The table of the nsd profile says what the profile says, field by field."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from minddiff_utils.core.conditions import compared_words
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.studies.storage import n_reconstructed

FOLDER = project_root() / "notebooks" / "profiles"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
TABLE = TEXT.split("## The nsd profile, field by field")[1].split("\n## ")[0]


def fields(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the dotted name and value of each field, those of groups included."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def rows() -> list[list[str]]:
    """Return the cells of each row beneath the head of the table."""
    lines = [line for line in TABLE.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines[2:]]


RESOLVED = dict(fields(load_profile("nsd")))
OURS = {row[0]: row[3] for row in rows()}


def test_the_table_has_one_row_for_each_field_and_none_beyond() -> None:
    named = [row[0].strip("`") for row in rows()]
    assert sorted(named) == sorted(RESOLVED)


@pytest.mark.parametrize("name", RESOLVED)
def test_ours_is_the_value_that_the_profile_resolves_to(name: str) -> None:
    stated = OURS[f"`{name}`"]
    assert re.fullmatch("`[^`]+`", stated)
    expected = json.loads(json.dumps(RESOLVED[name]))  # tuples become lists
    found = yaml.safe_load(stated.strip("`"))
    assert found == expected
    assert type(found) is type(expected)


def test_every_row_says_what_paper_and_code_have_and_why_ours_is_so() -> None:
    for row in rows():
        assert len(row) == 5, row
        assert all(row), row


def test_every_reference_of_the_table_leads_somewhere() -> None:
    used = set(re.findall(r"\]\[([^]]+)\]", TEXT))
    defined = dict(re.findall(r"^\[([^]]+)\]: (https://\S+)$", TEXT, re.M))
    assert used == set(defined)


def test_the_page_names_every_profile() -> None:
    shipped = {path.name for path in FOLDER.glob("*.yaml")}
    assert shipped <= set(re.findall(r"`(\w+\.yaml)`", TEXT))


@pytest.mark.parametrize("name", ["smoke", "demo", "nsd"])
def test_few_iterations_of_algorithm_1_are_never_shown_as_the_whole(name: str) -> None:
    stage2 = load_profile(name).stage2
    words = compared_words(stage2.paper.n_iter)["stage2_paper"]
    cut_short = stage2.paper.n_iter < 300
    assert cut_short == (f"{stage2.paper.n_iter} of the 300 iterations" in words)
    if name != "smoke":  # which looks at nothing but whether everything runs
        assert not (cut_short and stage2.paper.n_images)


def test_nsd_runs_algorithm_1_on_all_images_once_alone() -> None:
    profile = load_profile("nsd")
    stage2, n = profile.stage2, n_reconstructed(profile, 1)
    again = 2 * (stage2.n_images_controls or n) + stage2.paper.n_images
    assert stage2.preset == "paper"
    assert again < n / 10
