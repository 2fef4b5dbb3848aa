"""What the texts beside NSD's numbers say: names of regions, captions of images.

Pure functions on what was read; `nsd` opens the files. What is no name or no caption is
refused or left out, and never turned into words. Place in the flow: below `nsd`.
"""

import unicodedata
from typing import Any

__all__ = ["NEEDED_LABELS", "ROI_LABELS", "is_caption", "read_captions", "read_labels"]

_PRF = ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
_WANG = ("VO1", "VO2", "PHC1", "PHC2", "TO2", "TO1", "LO2", "LO1", "V3B", "V3A")
_IPS = ("IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5")
#: Label names in order of value 1..N, used where the folder holds no colour table.
ROI_LABELS = {
    "prf-visualrois": _PRF,
    "Kastner2015": (*_PRF, *_WANG, *_IPS, "SPL1", "FEF"),
    "nsdgeneral": ("nsdgeneral",),
}
#: Labels without which voxels of the eleven areas would be lost.
NEEDED_LABELS = {"prf-visualrois": _PRF, "Kastner2015": (*_PRF, *_WANG, *_IPS)}


def read_labels(text: str) -> dict[str, int]:
    r"""Return label name -> value of a colour table; 0, the background, is left out.

    Tables carry trailing blanks and tabs, colours, comments, and may end anywhere.

    Raises
    ------
    ValueError
        A line begins with no number, or a name or a value stands twice.

    Examples
    --------
    >>> read_labels("# Wang 2015\n0 Unknown\t\n1 V1v 255 0 0 0\n")
    {'V1v': 1}
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    rows = [line for line in lines if not line[0].startswith("#")]
    labels: dict[str, int] = {}
    for value, name in ((int(row[0]), row[1]) for row in rows if len(row) > 1):
        if value <= 0 or labels.get(name) == value:
            continue
        if name in labels or value in labels.values():
            raise ValueError(f"the line {value} {name} gives a name or value again")
        labels[name] = value
    return labels


def read_captions(raw: Any) -> dict[int, list[str]]:
    """Return COCO's captions by cocoId, in the order of their annotation ids.

    A caption without a visible character is none; an annotation that stands twice
    counts once; white space and control characters become single blanks.

    Raises
    ------
    ValueError
        What is wrong, in words: no annotations, an id that is no whole number, a
        caption that is no text, two annotations under one id.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("annotations"), list):
        raise ValueError("no list of annotations")
    seen: dict[int, tuple[int, str]] = {}
    for note in raw["annotations"]:
        number, image = (_whole(note, name) for name in ("id", "image_id"))
        said = image, _text(note, number)
        if seen.setdefault(number, said) != said:
            raise ValueError(f"two different annotations with the id {number}")
    known: dict[int, list[str]] = {}
    for _, (image, text) in sorted(seen.items()):
        if is_caption(text):
            known.setdefault(image, []).append(text)
    return known


def _field(note: Any, name: str) -> Any:
    if not isinstance(note, dict):
        raise ValueError(f"{type(note).__name__} {str(note)[:40]!r} for an annotation")
    if name not in note:
        held = ", ".join(map(str, note)) or "nothing"
        raise ValueError(f"an annotation without {name!r} (it has {held[:80]})")
    return note[name]


def _whole(note: Any, name: str) -> int:
    value = _field(note, name)
    try:
        number = int(value)
        whole = not isinstance(value, bool) and float(value) == number
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(f"{str(value)[:40]!r} for the {name!r} of an annotation")
    return number


def _text(note: Any, number: int) -> str:
    value = _field(note, "caption")
    if not isinstance(value, str):
        kind = "nothing (null)" if value is None else f"{str(value)[:40]!r}"
        raise ValueError(f"{kind} for the caption of annotation {number}")
    kinds = [unicodedata.category(c) for c in value]
    if "Cs" in kinds:  # half of a pair: no file can hold it
        raise ValueError(f"broken Unicode in the caption of annotation {number}")
    visible = (" " if k == "Cc" else c for c, k in zip(value, kinds, strict=True))
    return " ".join("".join(visible).split())


def is_caption(text: str) -> bool:
    r"""Return whether a text has a visible character.

    >>> is_caption("a cat"), is_caption(" \u200b")
    (True, False)
    """
    return any(c.isprintable() and not c.isspace() for c in text)
