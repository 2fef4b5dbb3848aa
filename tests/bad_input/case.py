"""One row of the campaign: what is spoilt, who meets it, and what must be said."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .world import Damage, World, nothing

#: The arguments of `minddiff`, in which {root} is the world's folder; or a function.
Act = tuple[str, ...] | Callable[[World], object]


@dataclass(frozen=True)
class Case:
    """What is wrong, and the sentence.

    Attributes
    ----------
    act : tuple of str or callable
        What the user does: a command line, or what a notebook calls.
    found : str
        Words that say what is wrong.
    remedy : str
        Words that say what to do.
    path : str
        The file to spoil, below the world's root; it must be named. `*` stands for
        anything, and the first file that matches is meant.
    damage : callable
        How it is spoilt.
    names : str
        What is named instead of the file, such as an option.
    leaves : tuple of str
        Files that stay nevertheless: whole, and made again by the next run.
    """

    act: Act
    found: str
    remedy: str
    path: str = ""
    damage: Damage = nothing
    names: str = ""
    leaves: tuple[str, ...] = ()

    def place(self, world: World) -> Path:
        """Return the file to spoil: the first of those that `path` matches, if any."""
        matching = sorted(world.root.glob(self.path)) if "*" in self.path else []
        return matching[0] if matching else world.root / self.path
