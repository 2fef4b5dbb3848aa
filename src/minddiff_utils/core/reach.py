"""Which code of the package some other code reaches, read from the syntax trees.

A name is followed to the statement that defines it, through the packages that hand it
on, and from there to all that this statement names: also in annotations, in imports
within a function and as attributes of modules. A module that is used as a value, or
whose attribute nobody defines, counts whole; so does the package where a module is
imported by a name that is made while it runs. Scopes are not told apart: a variable
with the name of a definition counts as that, so that too much is reached rather than
too little. Nothing is imported or run here; `provenance` makes digests.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

__all__ = ["WHOLE", "Package", "bound_by"]

#: In the place of a name: everything in the module.
WHOLE = "*"
#: A name, and attributes of it.
Chain = tuple[str, ...]
#: A module, and a name in it with its attributes; empty for the module itself.
Target = tuple[str, Chain]

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
#: What binds names for itself alone.
_LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (*_DEFINITIONS, ast.Lambda, *_LOOPS)
#: Statements that do nothing but bind names.
_DEFINES = (*_DEFINITIONS, ast.Assign, ast.AnnAssign, ast.AugAssign)
_IMPORTS = (ast.Import, ast.ImportFrom)
#: Calls that import by a name made at run time.
_DYNAMIC = {"import_module", "__import__"}
#: How a package's stub imports from the modules of the package.
_RELATIVE = re.compile(r"^from \.([\w.]+) import", re.MULTILINE)
#: Suffixes of files that code of the same folder fills in or reads.
_TEMPLATES = (".html", ".css", ".csv", ".mplstyle")


@dataclass(frozen=True)
class _Module:
    """A module's statements: what each name is defined or imported by, what acts."""

    name: str
    lines: Sequence[str]
    defined: Mapping[str, Sequence[ast.stmt]]
    imported: Mapping[str, set[Target]]
    loaded: frozenset[str]
    acts: Sequence[ast.stmt]

    @property
    def targets(self) -> Iterator[Target]:
        """Give all that the module imports."""
        for several in self.imported.values():
            yield from several

    def text(self, names: Iterable[str]) -> str:
        """Return the source without the definitions of any name but `names`.

        What stands between definitions stays, and so do their names.
        """
        kept, lines = set(names), list(self.lines)
        for name, statements in self.defined.items():
            for statement in statements:
                # a statement may define a name that is kept, too
                if not kept.isdisjoint({WHOLE, name} | bound_by(statement)):
                    continue
                decorators = getattr(statement, "decorator_list", [])
                first = min(s.lineno for s in (statement, *decorators)) - 1
                last = statement.end_lineno or first
                lines[first:last] = [name, *[""] * (last - first - 1)]
        return "\n".join(lines)


class Package:
    """The package whose files lie in `folder`, under the name `name`."""

    def __init__(self, folder: Path, name: str = "minddiff_utils") -> None:
        self.folder, self.name = folder, name
        self._modules: dict[str, _Module | None] = {}

    def path(self, module: str) -> Path | None:
        """Return the file of one of the package's modules, None if it has no such."""
        first, *rest = module.split(".")
        base = self.folder.joinpath(*rest)
        # what a package hands on when it is asked for stands in its stub
        files = (base / "__init__.pyi", base / "__init__.py", base.with_suffix(".py"))
        return next((f for f in files if first == self.name and f.is_file()), None)

    def module(self, name: str) -> _Module | None:
        """Return a module by its full name, None if it is not of this package."""
        if name not in self._modules:
            path = self.path(name)
            text = "" if path is None else path.read_text(encoding="utf-8")
            if path is not None and path.suffix == ".pyi":
                text = _RELATIVE.sub(rf"from {name}.\1 import", text)
            self._modules[name] = None if path is None else _parsed(name, text)
        return self._modules[name]

    @cached_property
    def all_modules(self) -> tuple[str, ...]:
        """The names of all modules."""
        paths = sorted(p.relative_to(self.folder) for p in self.folder.rglob("*.py"))
        names = (".".join((self.name, *p.with_suffix("").parts)) for p in paths)
        return tuple(name.removesuffix(".__init__") for name in names)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files of the package that something depends on, in order."""
        modules = sorted(self.folder.rglob("*.py"))
        return (*modules, *_templates({path.parent for path in modules}))

    def reached(
        self,
        code: str = "",
        *,
        roots: Iterable[tuple[str, str]] = (),
        without: Sequence[str] = (),
    ) -> dict[str, set[str]]:
        """Return all that `code`, or a definition in `roots`, reaches.

        Parameters
        ----------
        code : str
            Python, such as a notebook's cells.
        roots : iterable of (module, name)
            Definitions of this package.
        without : sequence of str
            Names of modules, or of packages, that are not followed.

        Returns
        -------
        dict of set of str
            Names that a module defines, by the module's name; "*" stands for all.
        """
        search = _Search(self, tuple(without))
        for module, name in roots:
            search.add(module, (name,))
        if code:
            search.read(_parsed("", code))
        return search.finish()

    def text(self, reached: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
        """Give each module that is `reached`, in order, with its source that counts.

        Definitions that are not reached do not count; where they stand, their names do.
        Templates count with every module of their folder.
        """
        folders = set()
        for name in sorted(reached):
            module, path = self.module(name), self.path(name)
            if module is not None and path is not None:
                yield name, module.text(reached[name])
                folders.add(path.parent)
        for path in _templates(folders):
            name = path.relative_to(self.folder).as_posix()
            yield name, path.read_text(encoding="utf-8")


def _dotted(target: Target) -> str:
    return ".".join((target[0], *target[1]))


def _templates(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in sorted(folders):
        yield from sorted(f for f in folder.iterdir() if f.suffix in _TEMPLATES)


class _Search:
    """Follows names until nothing new is found."""

    def __init__(self, package: Package, without: tuple[str, ...]) -> None:
        self._package, self._without = package, without
        self._names: dict[str, set[str]] = {}
        self._waiting: list[tuple[_Module, str]] = []
        self._loaded: set[str] = set()
        self._asked: set[Target] = set()

    def read(self, module: _Module) -> None:
        """Follow every statement of code that is no module of the package."""
        for name in module.loaded:
            self._load(name)
        statements = [s for several in module.defined.values() for s in several]
        self._follow(module, [*statements, *module.acts])
        for target in module.targets:
            if target[1] and self._package.module(_dotted(target)) is None:
                self.add(*target)

    def finish(self) -> dict[str, set[str]]:
        while self._waiting:
            module, name = self._waiting.pop()
            if name != WHOLE:
                self._follow(module, module.defined[name])
                continue
            for each in module.defined:
                self.add(module.name, (each,))
            for target in module.targets:
                if target != (self._package.name, ()):
                    self.add(*target)
        return self._names

    def add(self, module: str, chain: Chain) -> None:
        """Follow attributes from a module to the definition of the last name."""
        code = self._package.module(module)
        if code is None or (module, chain) in self._asked or not self._counts(module):
            return
        self._asked.add((module, chain))
        self._load(module)
        head, *rest = chain or (WHOLE,)
        below = f"{module}.{head}"
        targets = [t for t in code.imported.get(head, ()) if _dotted(t) != below]
        for source, inner in targets:
            self.add(source, (*inner, *rest))
        if head in code.defined:
            self._reach(code, head)
        elif self._package.module(below) and not targets:
            self.add(below, tuple(rest))
        elif not targets:  # all of it, or what is made while it runs
            self._reach(code, WHOLE)

    def _counts(self, module: str) -> bool:
        return not any(f"{module}.".startswith(f"{name}.") for name in self._without)

    def _reach(self, module: _Module, name: str) -> None:
        names = self._names.setdefault(module.name, set())
        if name not in names:
            names.add(name)
            self._waiting.append((module, name))

    def _load(self, name: str) -> None:
        """Follow what a module does while it is imported, and what it imports."""
        code = self._package.module(name)
        if code is None or name in self._loaded or not self._counts(name):
            return
        self._loaded.add(name)
        self._load(name.rpartition(".")[0])
        for other in code.loaded:
            self._load(other)
        if code.acts:
            self._names.setdefault(name, set())
            self._follow(code, code.acts)

    def _follow(self, module: _Module, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            chains, loaded = _names_of(statement)
            for name in loaded:
                self._load(name)
            for head, *rest in chains:
                for source, chain in module.imported.get(head, ()):
                    self.add(source, (*chain, *rest))
                if head in module.defined and module.name:
                    self.add(module.name, (head,))
                if not _DYNAMIC.isdisjoint((head, *rest)):
                    for name in self._package.all_modules:
                        self.add(name, ())


# --- reading code -------------------------------------------------------------------


@lru_cache(maxsize=512)
def _parsed(name: str, text: str) -> _Module:
    defined: dict[str, list[ast.stmt]] = {}
    imported: dict[str, set[Target]] = {}
    loaded: set[str] = set()
    acts = []
    for statement in ast.parse(text).body:
        for node in ast.walk(statement):
            if isinstance(node, _IMPORTS):
                for each, target in _imports_of(node):
                    imported.setdefault(each, set()).add(target)
        tested = _names_in_test(statement)
        if tested == {"TYPE_CHECKING"} or _is_idle(statement, tested):
            continue
        imports = [n for n in _run_with(statement) if isinstance(n, _IMPORTS)]
        loaded |= {module for node in imports for module in _modules_of(node)}
        if isinstance(statement, _IMPORTS):
            continue
        bound = bound_by(statement)
        for each in sorted(bound):  # in one order, as `text` writes the last of them
            defined.setdefault(each, []).append(statement)
        if not bound or not isinstance(statement, _DEFINES):
            acts.append(statement)
    return _Module(
        name, text.splitlines(), defined, imported, frozenset(loaded), tuple(acts)
    )


def _is_idle(statement: ast.stmt, tested: set[str]) -> bool:
    """Return whether a statement does nothing where its module is imported."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return tested == {"__name__"}


def _names_in_test(statement: ast.stmt) -> set[str]:
    if not isinstance(statement, ast.If):
        return set()
    return {n.id for n in ast.walk(statement.test) if isinstance(n, ast.Name)}


def _run_with(statement: ast.AST) -> Iterator[ast.AST]:
    """Give a statement and what is below it, without what functions hold."""
    yield statement
    if not isinstance(statement, _SCOPES):
        for node in ast.iter_child_nodes(statement):
            yield from _run_with(node)


@lru_cache(maxsize=8192)
def bound_by(statement: ast.stmt) -> frozenset[str]:
    """Return the names that a statement binds; imports are told apart from these."""
    bound = set()
    for node in _run_with(statement):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, _DEFINITIONS):
            bound.add(node.name)
    return frozenset(bound)


def _imports_of(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Target]]:
    """Give what an import binds: each name, and what it stands for."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, (node.module or "", (alias.name,))
        else:
            first = alias.name.partition(".")[0]
            yield alias.asname or first, (alias.name if alias.asname else first, ())


def _modules_of(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the modules that an import loads, and names that may be such."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    module = node.module or ""
    return {module, *(f"{module}.{alias.name}" for alias in node.names)}


@lru_cache(maxsize=8192)
def _names_of(statement: ast.stmt) -> tuple[set[Chain], set[str]]:
    """Return the names that a statement reads, and the modules that it imports."""
    chains: set[Chain] = set()
    loaded: set[str] = set()
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _IMPORTS):
            loaded |= _modules_of(node)
        for kind in ("annotation", "returns"):
            waiting += _unquoted(getattr(node, kind, None))
        rest: list[str] = []
        while isinstance(node, ast.Attribute):
            rest.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            chains.add((node.id, *rest))
        elif rest and not _DYNAMIC.isdisjoint(rest):
            chains.add(("", *rest))
        waiting += ast.iter_child_nodes(node)
    return chains, loaded


def _unquoted(annotation: ast.AST | None) -> Iterator[ast.AST]:
    """Give what stands in the quotes of an annotation, as code."""
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                yield ast.parse(node.value, mode="eval").body
            except SyntaxError:  # text, as in Literal
                continue
