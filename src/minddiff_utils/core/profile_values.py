"""What single values of a profile may be, and the words of a label for some."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainValidator

__all__ = [
    "ALL_TRIALS",
    "MODEL_WORDS",
    "MOST_SESSIONS",
    "MOST_TEST_IMAGES",
    "SPLITS",
    "SUBJECT_WORDS",
    "Fraction",
    "Origin",
    "Percent",
    "Percents",
    "PositiveInt",
    "Session",
    "Sessions",
    "Share",
    "Split",
    "Subject",
]

#: Sessions of NSD's design; not every subject came to all of them.
MOST_SESSIONS = 40
#: Images that NSD shows to all subjects: no subject has more test images.
MOST_TEST_IMAGES = 1000


def _sessions_asked(given: object) -> object:
    """Return a number of sessions or "all"; a union would name its members instead."""
    if given != "all" and not (type(given) is int and 1 <= given <= MOST_SESSIONS):
        msg = f"it is {given!r}, but must be 1 to {MOST_SESSIONS}, or all"
        raise ValueError(msg)
    return given


PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]
Percents = Annotated[tuple[Percent, ...], Field(min_length=1)]
Subject = Annotated[int, Field(ge=1, le=8)]
Session = Annotated[int, Field(ge=1, le=MOST_SESSIONS)]
Sessions = Annotated[int | Literal["all"], PlainValidator(_sessions_asked)]
#: The splits that LAION-fMRI's makers ship: at random, at a distance, whole clusters,
#: outside the distribution.
Split = Literal[
    "random_0",
    "random_1",
    "random_2",
    "random_3",
    "random_4",
    "tau",
    "cluster_k5_0",
    "cluster_k5_1",
    "cluster_k5_2",
    "cluster_k5_3",
    "cluster_k5_4",
    "ood",
]
SPLITS: tuple[Any, ...] = get_args(Split)

#: Where responses come from.
Origin = Literal["measured", "in silico", "mixed"]
SUBJECT_WORDS: Mapping[Origin, str] = {
    "measured": "measured responses",
    "in silico": "in-silico subjects",
    "mixed": "measured and in-silico subjects",
}
#: What is said where test trials have a part in the scaling of the others.
ALL_TRIALS = "session z-scores with test images"
#: What is said of models that are not the paper's.
MODEL_WORDS = {"demo": "demo", "tiny": "tiny random", "sd14": ""}
