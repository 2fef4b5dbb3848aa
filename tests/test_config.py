"""Profiles refuse what they do not know."""

import pytest

from minddiff_utils.config import AREAS, HVC, LVC, load_profile
from minddiff_utils.errors import ConfigError


@pytest.mark.parametrize("name", ["smoke", "demo", "nsd"])
def test_every_shipped_profile_loads_and_carries_its_name(name: str) -> None:
    assert load_profile(name).name == name


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"stage2.n_itr": 5}, "n_itr"),
        ({"stage2.n_iter": "five"}, "n_iter"),
        ({"stage2.n_iter": -1}, "n_iter"),
        ({"decoding.k_percent": 0.0}, "k_percent"),
        ({"stage1.encode_index": 51}, "encode_index"),
        ({"features.clip_layers": [3, 1]}, "clip_layers"),
        ({"subjects": [9]}, "subjects"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_wrong_override_is_refused_by_name(overrides: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_profile("demo", overrides)


def test_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="demo, nsd, smoke"):
        load_profile("dmeo")


def test_digest_changes_with_any_field_and_with_nothing_else() -> None:
    base = load_profile("demo")
    assert base.digest == load_profile("demo").digest
    assert base.digest != load_profile("demo", {"stage2.n_iter": 3}).digest


def test_the_eleven_areas_are_split_into_low_and_high() -> None:
    assert set(LVC) | set(HVC) == set(AREAS)
    assert not set(LVC) & set(HVC)
    assert len(AREAS) == 11


def test_in_silico_profiles_say_so_in_their_label() -> None:
    assert "in-silico" in load_profile("demo").label
    assert "in-silico" not in load_profile("nsd").label
