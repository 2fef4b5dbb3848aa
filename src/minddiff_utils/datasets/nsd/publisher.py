"""What to do about a file of NSD that is missing, damaged or another one.

What helps follows the data: an in-silico folder is simulated again, NSD's own is
compared with what NSD publishes.
"""

from collections.abc import Callable
from pathlib import Path

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.provenance import MARK
from minddiff_utils.core.reading import stand_in
from minddiff_utils.datasets.nsd.layout import PARTS
from minddiff_utils.datasets.published import Published

__all__ = ["NSD"]

_SIMULATE = "make one with `minddiff simulate`"


def _root(path: Path) -> Path | None:
    """Return the folder that holds NSD's folders and, in one of them, `path`."""
    return next((p.parent for p in path.parents if p.name in PARTS), None)


def _is_marked(path: Path) -> bool:
    """Return whether `path` lies in a folder that a simulation marked as its own."""
    root = _root(path)
    return root is not None and _seen((root / MARK).is_file)


def _seen(test: Callable[[], bool]) -> bool:
    """Return what `test` of a path says, False where nobody may look."""
    try:
        return test()
    except OSError:
        return False


class _Nsd(Published):
    """NSD's files: where they come from, and what helps, depends on the folder."""

    def source(self, path: Path) -> str:
        """Return where a file that is not there comes from."""
        root, name = _root(path), "name the right folder (--nsd-root)"
        if root is None or _is_marked(path):
            return f"{name}, or {_SIMULATE}"
        if not _seen(root.is_dir):
            return f"{name}, download NSD with `minddiff fetch`, or {_SIMULATE}"
        if path.suffix == ".json":
            return f"unpack COCO's annotations_trainval2017.zip there, or {name}"
        return f"download it from NSD (`minddiff fetch`), or {name}"

    def remedy(self, path: Path) -> str:
        """Return what to do about a file whose bytes are damaged."""
        if _is_marked(path):
            return "simulate the folder again (`minddiff simulate`)"
        owner = "COCO's" if path.suffix == ".json" else "NSD's"
        return (
            f"compare its size and checksum with {owner} own file, and download it"
            " again beside this one if they differ"
        )

    def wrong(self, path: Path, found: str, expected: str) -> DataError:
        """Return the error of a file that can be read and holds something else."""
        marked = _is_marked(path)
        remedy = self.remedy(path) if marked else "replace it by NSD's own file"
        other, fetch = stand_in(path)
        if other:
            return DataError(f"{path} {other}: {fetch or remedy}.")
        return DataError(f"{path} holds {found}, but {expected} is expected: {remedy}.")


NSD = _Nsd(form="in NSD's format")
