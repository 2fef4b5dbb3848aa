"""What a condition is: one way to make an image for each image that was seen.

The conditions themselves are in `conditions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from minddiff_utils.core.profile import Preset

__all__ = ["Condition", "Engine", "Source"]

#: Where a feature comes from: the brain; the seen image; another image's brain; the
#: brain for this row alone (`decoded_systems.h5`); pixels read from it; of c, the mean
#: of what the brain leaves of a corpus of captions. None: left out.
Source = Literal["decoded", "true", "shuffled", "own", "pixels", "posterior"] | None
#: What makes the images: z through the autoencoder; the sampler of stage 1; an engine
#: of stage 2 (the preset's, or a fixed one); or a baseline: the mean training image,
#: one at random, the nearest one, that of the likeliest caption, the mean over all by
#: their captions, pixels read from the brain. None: it has no images.
_Baseline = Literal["mean", "random", "nearest", "likeliest", "expected", "pixels"]
Engine = Literal["autoencoder", "sampler", "preset"] | Preset | _Baseline
#: How many images of a subject are made: all, or the first ones by a profile's field.
Count = Literal["all", "controls", "paper", "ablation", "few"]
Kind = Literal["method", "part", "system", "baseline", "floor", "ceiling", "draw"]


@dataclass(frozen=True)
class Condition:
    """One row of the tables.

    Attributes
    ----------
    name : str
        In tables, and of the folder of its images.
    label : str
        What it is, in the words of tables and figures.
    kind : {"method", "part", "system", "baseline", "floor", "ceiling", "draw"}
        "method": MindDiffuser and its variants; "part": some of its features alone;
        "draw": stage 1 again from other noise, for the spread over draws.
    c, z, clip : str or None
        Where each feature comes from.
    engine : str or None
        What makes its images; None: there are none.
    n_images : {"all", "controls", "paper", "ablation", "few"}
        "ablation": on the ablation's images; "few": on half of them.
    strength : {"takagi", "brain_diffuser"} or None
        Share of the noise steps that is its own; None: the level of stage 1.
    ceiling, floor : str or None
        The row from the true features, and that from another image's brain.
    is_cell : bool
        Whether it is one of the eight cells of the factorial of c, z and Z_CLIP.
    short : str
        Words of its row in galleries or, of a floor, in `floors.csv`; empty: none.
    why_not_run : str
        Why it has no images; empty: it is run.
    layers, k_percent, n_iter : optional
        What is changed of the engine: CLIP blocks in the loss, the share of features
        kept, iterations of the loop.
    n_draws : int
        Images of the sampler, of which that with the lowest structural loss is kept.
    draw : int
        Of the sampler: which draw of an image's stream of noise is taken, from 1.
    settings : mapping
        Fields of the engine's settings (`generation.presets`) that are the row's own;
        of the best of several draws, which `loss` chooses it.
    sampler : mapping
        Fields of the sampler (`core.profile.Stage1Config`) that are the row's own.
    """

    name: str
    label: str
    kind: Kind
    c: Source = None
    z: Source = None
    clip: Source = None
    engine: Engine | None = None
    n_images: Count = "all"
    strength: Literal["takagi", "brain_diffuser"] | None = None
    ceiling: str | None = None
    floor: str | None = None
    is_cell: bool = False
    short: str = ""
    why_not_run: str = ""
    layers: tuple[int, ...] | Literal["highest"] | None = None
    k_percent: float | None = None
    n_iter: int | None = None
    n_draws: int = 1
    draw: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sampler: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def is_baseline(self) -> bool:
        """Return whether its images need no generator."""
        return self.engine in get_args(_Baseline)

    @property
    def stage(self) -> Literal[1, 2]:
        """Return the stage that makes it: notebook 03 or 04."""
        return 2 if self.engine in ("preset", *get_args(Preset)) else 1
