"""Which part of the profile each notebook may read, so that it depends on no other."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from minddiff_utils.core.errors import ConfigError

__all__ = ["READS", "UNREAD", "ProfileView"]

#: What a notebook may read of the profile, beside its name and seed, so that a change
#: elsewhere leaves its artefacts; those of other notebooks depend on the whole profile.
#: `decoder` is the property: 02 depends on nothing else of stage 2.
READS: Mapping[str, tuple[str, ...]] = {
    "00_insilico_nsd": ("simulation", "subjects", "data"),
    "01_data_prep": ("simulation", "data", "models", "features"),
    "02_decoding": (
        *("simulation", "data", "models", "features"),
        *("decoding", "decoder", "systems"),
    ),
    "A2_decoders": ("features", "decoding", "evaluation"),
    "A7_further_tests": (
        *("data", "models", "features", "decoding", "decoder"),
        "stage1",
    ),
    "03_stage1": (
        *("simulation", "data", "models", "features"),
        *("stage1", "posterior", "systems", "ablation"),
    ),
    "04_stage2": (
        *("simulation", "data", "models", "features"),
        *("stage1", "posterior", "stage2", "systems", "ablation"),
    ),
    "09_video": (
        *("simulation", "subjects", "models", "stage1"),
        *("ablation", "evaluation"),
    ),
    "A3_engines": ("subjects", "study", "evaluation"),
    "A4_discrepancies": ("subjects", "evaluation"),
    "A5_other_generator": ("subjects", "evaluation"),
    "A6_digits69": ("subjects", "decoding", "evaluation"),
}


#: Fields of these sections that the notebook may not read.
UNREAD: Mapping[str, tuple[tuple[str, str], ...]] = {
    notebook: (("data", "n_reconstruct"),)
    for notebook in (
        *("00_insilico_nsd", "01_data_prep", "02_decoding"),
        "A7_further_tests",
    )
}


class ProfileView:
    """A profile, or a section of it, of which one notebook sees its own part alone.

    Any other field raises ConfigError: what a notebook reads unseen would leave its
    artefacts standing when that field changes.
    """

    _ALWAYS = (
        *("name", "seed", "label", "usual_origin", "data_set"),
        *("check_shards", "part", "part_digest"),
    )

    def __init__(
        self, whole: BaseModel, notebook: str, *, section: str | None = None
    ) -> None:
        self._whole = whole
        self._notebook = notebook
        self._section = section

    def __getattr__(self, name: str) -> Any:
        """Return a field that the notebook may read."""
        if name.startswith("_"):
            raise AttributeError(name)
        if not self._may_read(name):
            where = f"{self._section}.{name}" if self._section else name
            raise ConfigError(
                f"Notebook {self._notebook} reads {where} of the profile, which READS "
                "and UNREAD in profile_parts.py do not let it: let it there, so that a "
                "change of that field runs the notebook again."
            )
        value = getattr(self._whole, name)
        unread = {section for section, _ in UNREAD.get(self._notebook, ())}
        if self._section is None and name in unread:
            return ProfileView(value, self._notebook, section=name)
        return value

    def _may_read(self, name: str) -> bool:
        if self._section is not None:
            return (self._section, name) not in UNREAD[self._notebook]
        return name in (*self._ALWAYS, *READS[self._notebook])
