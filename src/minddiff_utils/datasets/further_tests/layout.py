"""The files of NSD-synthetic and NSD-imagery, in one list, and what they are known for.

They lie in NSD's own tree, beside its core, under the same agreement and in the same
bucket. Facts without a mark were read in public code that works on the files; nobody
here has opened one.

References
----------
Gifford, A. T. et al. (2025). NSD-synthetic; gifale95/NSD-synthetic at 5d644e4.
Kneeland, R. et al. (2025). NSD-Imagery. CVPR, arXiv 2506.06898.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from minddiff_utils.datasets.inventory import DataFile, list_files
from minddiff_utils.datasets.nsd.layout import Container, sized

__all__ = ["NAMES", "N_TRIALS", "PICTURES", "RUNS", "Name", "Run", "inventory"]

#: The further test sets.
Name = Literal["synthetic", "imagery"]
NAMES: tuple[Name, ...] = get_args(Name)

#: Trials of each file of betas: not a session's 750.
N_TRIALS: dict[Name, int] = {"synthetic": 744, "imagery": 720}

# --- NSD-imagery ----------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run: its name in file names, its task, its set of stimuli, betas of a trial."""

    name: str
    task: Literal["vision", "attention", "imagery"]
    letter: str
    n_betas: int = 1


#: In the order of the betas. A trial of attention has two, one after the other.
RUNS = tuple(
    run
    for x in "ABC"
    for run in (
        Run(f"vis{x}", "vision", x),
        Run(f"att{x}", "attention", x, 2),
        Run(f"img{x}_1", "imagery", x),
    )
) + tuple(Run(f"img{x}_2", "imagery", x) for x in "ABC")

#: Letter of the column CONDITION -> picture, of the simple (A) and complex (B) stimuli.
#: Numbers of B are NSD's own, 1-based; the last is no picture of NSD.
PICTURES: dict[str, dict[str, str]] = {
    "A": {
        "H": "bar_000.0deg_450L_43W.png",
        "R": "bar_045.0deg_450L_43W.png",
        "V": "bar_090.0deg_450L_43W.png",
        "L": "bar_135.0deg_450L_43W.png",
        "P": "crs_000.0deg_450L_43W.png",
        "E": "crs_045.0deg_450L_43W.png",
    },
    "B": {
        "W": "shared0385_nsd28752.png",
        "K": "shared0413_nsd30857.png",
        "B": "shared0741_nsd53882.png",
        "C": "shared0842_nsd61178.png",
        "D": "shared0907_nsd65873.png",
        "T": "shared0000_nsd00000.png",
    },
}

# --- the inventory --------------------------------------------------------------------

_BETAS = "nsddata_betas/ppdata/{subject}/func1pt8mm/nsd%s{version}/betas_nsd%s.{form}"
_DESIGN = "nsddata/experiments/nsdsynthetic"
_BRICKS = "nsddata_stimuli/stimuli/nsdsynthetic/nsdsynthetic"
_BEHAVIOUR = "nsddata/bdata/nsdimagery/nsdimagery_{subject}_{run}.tsv"
_TARGETS = "nsddata/experiments/nsdimagery/rawtargetimages"
_file = partial(DataFile, notebook="A7")


def _betas(name: Name) -> DataFile:
    return _file("betas", _BETAS % (name, name), "responses")


#: Every file that a decoding of the further test sets reads.
_FILES: dict[Name, tuple[DataFile, ...]] = {
    "synthetic": (
        _betas("synthetic"),
        _file("design", f"{_DESIGN}/nsdsynthetic_expdesign.mat", "order of stimuli"),
        _file("table", f"{_DESIGN}/nsdsyntheticimageinformation.csv", "classes"),
        _file("common", f"{_BRICKS}_stimuli.hdf5", "stimuli of all subjects"),
        _file("own", f"{_BRICKS}_colorstimuli_{{subject}}.hdf5", "stimuli of one"),
    ),
    "imagery": (
        _betas("imagery"),
        _file("run", _BEHAVIOUR, "trials", {"run": [run.name for run in RUNS]}),
        *(
            _file(
                f"pictures {letter}",
                f"{_TARGETS}/set{letter}/{{picture}}",
                "pictures seen or imagined",
                {"picture": list(pictures.values())},
            )
            for letter, pictures in PICTURES.items()
        ),
    ),
}


def inventory(
    name: Name, subject: int, version: str, form: Container = "hdf5"
) -> tuple[DataFile, ...]:
    """Return all files of a test set that a subject needs.

    >>> inventory("imagery", 1, "betas_fithrf")[0].n_bytes / 1e9
    1.051584768
    """
    files = list_files(_FILES[name], [subject], {"betas": {"form": (form,)}}, version)
    return tuple(sized(file, N_TRIALS[name]) for file in files)
