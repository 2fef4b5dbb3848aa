"""Which code of the package some other code reaches, read from the syntax trees.

A name is followed to the statement that defines it, through the packages that hand it
on, and from there to all that this statement names: also in annotations, in imports
within a function and as attributes of modules. A module that is used as a value, or
whose attribute nobody defines, counts whole; so does the package where a module is
imported by a name that is made while it runs. Nothing is imported or run here. What
statements name is `syntax`'s; `provenance` makes digests.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from minddiff_utils.core.syntax import (
    ALL,
    OWN_SCOPE,
    Chain,
    Names,
    Target,
    bound_by,
    imports_of,
    modules_of,
    names_of,
)

__all__ = ["Package", "Reached"]

#: Statements that do nothing but bind names.
_DEFINES = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign, ast.AugAssign),
)
#: How a package's stub imports from the modules of the package.
_RELATIVE = re.compile(r"^from \.([\w.]+) import", re.MULTILINE)
#: Suffixes of files that code of the same folder fills in: templates.
_TEMPLATES = (".html", ".css")


@dataclass(frozen=True)
class _Module:
    """A module's statements: what each name is defined or imported by, what acts."""

    name: str
    lines: Sequence[str]
    defined: Mapping[str, Sequence[ast.stmt]]
    imported: Mapping[str, Target]
    loaded: frozenset[str]
    acts: Sequence[ast.stmt]
    _named: dict[int, "Names"] = field(default_factory=dict)

    def names(self, statement: ast.stmt) -> "Names":
        """Return what one of the module's statements names."""
        if id(statement) not in self._named:
            self._named[id(statement)] = names_of(statement)
        return self._named[id(statement)]

    def text(self, names: Iterable[str]) -> str:
        """Return the source without the definitions of any name but `names`.

        What stands between definitions stays, and so do their names.
        """
        kept = set(names)
        every = ALL in kept
        lines = list(self.lines)
        for name, statements in self.defined.items():
            if every or name in kept:
                continue
            for statement in statements:
                if not kept.isdisjoint(bound_by(statement)):
                    continue  # it defines a name that is kept, too
                first, last = _span(statement)
                lines[first:last] = [name, *[""] * (last - first - 1)]
        return "\n".join(lines)


@dataclass
class Reached:
    """What is reached: names by module.

    Attributes
    ----------
    names : dict of set of str
        Names that a module defines, by the module's name; "*" stands for all.
    """

    names: dict[str, set[str]] = field(default_factory=dict)

    def has(self, module: str, name: str) -> bool:
        """Return whether the definition of `name` in `module` is reached."""
        return not self.names.get(module, set()).isdisjoint((name, ALL))


class Package:
    """The package whose files lie in `folder`, under the name `name`."""

    def __init__(self, folder: Path, name: str = "minddiff_utils") -> None:
        self.folder, self.name = folder, name
        self.modules_of: dict[str, _Module | None] = {}

    def path(self, module: str) -> Path | None:
        """Return the file of one of the package's modules, None if it has no such."""
        first, *rest = module.split(".")
        base = self.folder.joinpath(*rest)
        # what a package hands on when it is asked for stands in its stub
        files = (base / "__init__.pyi", base / "__init__.py", base.with_suffix(".py"))
        return next((f for f in files if first == self.name and f.is_file()), None)

    def module(self, name: str) -> _Module | None:
        """Return a module by its full name, None if it is not of this package."""
        if name not in self.modules_of:
            path = self.path(name)
            text = None if path is None else path.read_text(encoding="utf-8")
            if path is not None and path.suffix == ".pyi" and text is not None:
                text = _RELATIVE.sub(rf"from {name}.\1 import", text)
            self.modules_of[name] = None if text is None else _parsed(name, text)
        return self.modules_of[name]

    @cached_property
    def all_modules(self) -> tuple[str, ...]:
        """The names of all modules."""
        found = []
        for path in sorted(self.folder.rglob("*.py")):
            parts = path.relative_to(self.folder).with_suffix("").parts
            found.append(".".join((self.name, *parts)).removesuffix(".__init__"))
        return tuple(found)

    def templates(self, folder: Path) -> Iterator[Path]:
        """Give the templates in a folder of the package, in order."""
        yield from sorted(f for f in folder.iterdir() if f.suffix in _TEMPLATES)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files of the package that something depends on, in order."""
        modules = sorted(self.folder.rglob("*.py"))
        folders = sorted({path.parent for path in modules})
        return (*modules, *(t for folder in folders for t in self.templates(folder)))

    def reached(
        self,
        code: str = "",
        *,
        roots: Iterable[tuple[str, str]] = (),
        without: Sequence[str] = (),
    ) -> Reached:
        """Return all that `code`, or a definition in `roots`, reaches.

        Parameters
        ----------
        code : str
            Python, such as a notebook's cells.
        roots : iterable of (module, name)
            Definitions of this package.
        without : sequence of str
            Names of modules, or of packages, that are not followed.
        """
        found = _Search(self, tuple(without))
        for module, name in roots:
            found.add(module, (name,))
        if code:
            found.read(_parsed("", code))
        return found.finish()

    def text(self, reached: Reached) -> Iterator[tuple[str, str]]:
        """Give each module that `reached` holds, in order, with its source that counts.

        Definitions that are not reached do not count; where they stand, their names do.
        Templates count with every module of their folder.
        """
        folders = set()
        for name in sorted(reached.names):
            module, path = self.module(name), self.path(name)
            if module is not None and path is not None:
                yield name, module.text(reached.names[name])
                folders.add(path.parent)
        for template in (
            t for folder in sorted(folders) for t in self.templates(folder)
        ):
            name = template.relative_to(self.folder).as_posix()
            yield name, template.read_text(encoding="utf-8")


class _Search:
    """Follows names until nothing new is found."""

    def __init__(self, package: Package, without: tuple[str, ...]) -> None:
        self._package, self._without = package, without
        self._reached = Reached()
        self._waiting: list[tuple[_Module, str]] = []
        self._loaded: set[str] = set()

    def read(self, module: _Module) -> None:
        """Follow every statement of code that is no module of the package."""
        for name in module.loaded:
            self._load(name)
        statements = [s for several in module.defined.values() for s in several]
        self._follow(module, [*statements, *module.acts])
        for name, target in module.imported.items():
            is_module = self._package.module(_below(target)) is not None
            if name == ALL or (target.name and not is_module):
                self.add(target.module, target.chain)

    def finish(self) -> Reached:
        while self._waiting:
            module, name = self._waiting.pop()
            if name != ALL:
                self._follow(module, module.defined[name])
                continue
            for each in module.defined:
                self.add(module.name, (each,))
            for target in module.imported.values():
                if target.module != self._package.name or target.name:
                    self.add(target.module, target.chain)
        return self._reached

    def add(self, module: str, chain: Chain) -> None:
        """Follow attributes from a module to the definition of the last name."""
        seen: set[tuple[str, Chain]] = set()
        while (found := self._package.module(module)) and self._counts(module):
            self._load(module)
            if not chain or (module, chain) in seen:
                return self._reach(found, ALL)
            seen.add((module, chain))
            head, rest = chain[0], chain[1:]
            below = f"{module}.{head}"
            target = found.imported.get(head)
            if target is not None and _below(target) != below:
                module, chain = target.module, (*target.chain, *rest)
            elif head in found.defined:
                return self._reach(found, head)
            elif self._package.module(below):
                module, chain = below, rest
            else:  # made while it runs, or not there
                return self._reach(found, ALL)
        return None

    def _counts(self, module: str) -> bool:
        return not any(
            module == name or module.startswith(f"{name}.") for name in self._without
        )

    def _reach(self, module: _Module, name: str) -> None:
        names = self._reached.names.setdefault(module.name, set())
        if name not in names:
            names.add(name)
            self._waiting.append((module, name))

    def _load(self, name: str) -> None:
        """Follow what a module does while it is imported, and what it imports."""
        found = self._package.module(name)
        if found is None or name in self._loaded or not self._counts(name):
            return
        self._loaded.add(name)
        self._load(name.rpartition(".")[0])
        for other in found.loaded:
            self._load(other)
        if found.acts:
            self._reached.names.setdefault(name, set())
            self._follow(found, found.acts)

    def _follow(self, module: _Module, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            names = module.names(statement)
            for name in names.loaded:
                self._load(name)
            for target, chain in names.imported:
                self.add(target.module, (*target.chain, *chain))
            for head, *rest in names.chains:
                if head in module.imported:
                    target = module.imported[head]
                    self.add(target.module, (*target.chain, *rest))
                if head in module.defined and module.name:
                    self.add(module.name, (head,))
            if names.is_dynamic:
                for name in self._package.all_modules:
                    self.add(name, ())


# --- reading code -------------------------------------------------------------------


def _span(statement: ast.stmt) -> tuple[int, int]:
    """Return the first line of a statement with its decorators, and the one after."""
    decorators = getattr(statement, "decorator_list", [])
    first = min(s.lineno for s in (statement, *decorators))
    return first - 1, statement.end_lineno or first


@lru_cache(maxsize=512)
def _parsed(name: str, text: str) -> _Module:
    defined: dict[str, list[ast.stmt]] = {}
    imported: dict[str, Target] = {}
    loaded: set[str] = set()
    acts = []
    for statement in ast.parse(text).body:
        if _is_idle(statement):
            continue
        for_types = _names_in_test(statement) == {"TYPE_CHECKING"}
        for node in [statement, *_inside(statement)]:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                imported |= imports_of(node)
                loaded |= set() if for_types else modules_of(node)
        if for_types or isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        names = bound_by(statement) - imported.keys()
        for each in sorted(names):  # in one order, as `text` writes the last of them
            defined.setdefault(each, []).append(statement)
        if not names or not isinstance(statement, _DEFINES):
            acts.append(statement)
    return _Module(
        name, text.splitlines(), defined, imported, frozenset(loaded), tuple(acts)
    )


def _is_idle(statement: ast.stmt) -> bool:
    """Return whether a statement does nothing where its module is imported."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return _names_in_test(statement) == {"__name__"}


def _names_in_test(statement: ast.stmt) -> set[str]:
    if not isinstance(statement, ast.If):
        return set()
    return {n.id for n in ast.walk(statement.test) if isinstance(n, ast.Name)}


def _inside(statement: ast.stmt) -> Iterator[ast.AST]:
    """Give the nodes below a statement that run with it, not those of functions."""
    waiting = [] if isinstance(statement, OWN_SCOPE) else [statement]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            yield node
            if not isinstance(node, OWN_SCOPE) and isinstance(node, ast.stmt):
                waiting.append(node)


def _below(target: Target) -> str:
    return f"{target.module}.{target.name}"
