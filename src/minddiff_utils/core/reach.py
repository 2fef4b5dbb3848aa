"""Which code of the package some other code reaches, read from the syntax trees.

A name is followed to the statement that defines it, through the packages that hand it
on, and from there to all that this statement names: also in annotations, in imports
within a function and as attributes of modules. A module that is used as a value, or
whose attribute nobody defines, counts whole; so does the package where a module is
imported by a name that is made while it runs. Nothing is imported or run here. Place in
the flow: layer 1; `provenance` makes digests of it.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

__all__ = ["Package", "Reached", "names_of"]

#: What nodes open a scope of their own.
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_OWN_SCOPE = (*_FUNCTIONS, *_LOOPS, ast.ClassDef)
#: Statements that do nothing but bind names.
_DEFINES = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign, ast.AugAssign),
)
#: Calls that import by a name made at run time.
_DYNAMIC = ("import_module", "__import__")
#: How a package's stub imports from the modules of the package.
_RELATIVE = re.compile(r"^from \.([\w.]+) import", re.MULTILINE)
#: In the place of a name: everything in the module.
_ALL = "*"


@dataclass(frozen=True)
class _Target:
    """What an import binds: a module, or a name in it."""

    module: str
    name: str = ""

    @property
    def chain(self) -> tuple[str, ...]:
        return (self.name,) if self.name else ()


#: Names of a scope; those of imports with what they stand for.
_Scope = Mapping[str, _Target | None]
#: A name, and attributes of it.
_Chain = tuple[str, ...]


@dataclass(frozen=True)
class _Module:
    """A module's statements: what each name is defined or imported by, what acts."""

    name: str
    lines: Sequence[str]
    defined: Mapping[str, Sequence[ast.stmt]]
    imported: Mapping[str, _Target]
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
        every = _ALL in kept
        lines = list(self.lines)
        for name, statements in self.defined.items():
            if every or name in kept:
                continue
            for statement in statements:
                if not kept.isdisjoint(_bound_by(statement)):
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
        return not self.names.get(module, set()).isdisjoint((name, _ALL))


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
            text = None if path is None else path.read_text(encoding="utf-8")
            if path is not None and path.suffix == ".pyi" and text is not None:
                text = _RELATIVE.sub(rf"from {name}.\1 import", text)
            self._modules[name] = None if text is None else _parsed(name, text)
        return self._modules[name]

    @cached_property
    def all_modules(self) -> tuple[str, ...]:
        """The names of all modules."""
        found = []
        for path in sorted(self.folder.rglob("*.py")):
            parts = path.relative_to(self.folder).with_suffix("").parts
            found.append(".".join((self.name, *parts)).removesuffix(".__init__"))
        return tuple(found)

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
        """
        for name in sorted(reached.names):
            module = self.module(name)
            if module is not None:
                yield name, module.text(reached.names[name])


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
            if name == _ALL or (target.name and not is_module):
                self.add(target.module, target.chain)

    def finish(self) -> Reached:
        while self._waiting:
            module, name = self._waiting.pop()
            if name != _ALL:
                self._follow(module, module.defined[name])
                continue
            for each in module.defined:
                self.add(module.name, (each,))
            for target in module.imported.values():
                if target.module != self._package.name or target.name:
                    self.add(target.module, target.chain)
        return self._reached

    def add(self, module: str, chain: _Chain) -> None:
        """Follow attributes from a module to the definition of the last name."""
        seen: set[tuple[str, _Chain]] = set()
        while (found := self._package.module(module)) and self._counts(module):
            self._load(module)
            if not chain or (module, chain) in seen:
                return self._reach(found, _ALL)
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
                return self._reach(found, _ALL)
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


class Names(ast.NodeVisitor):
    """Collects the names that a statement reads and that it does not bind itself."""

    def __init__(self) -> None:
        self.chains: set[_Chain] = set()
        self.imported: set[tuple[_Target, _Chain]] = set()
        self.loaded: set[str] = set()
        self.is_dynamic = False
        self._scopes: list[_Scope] = []

    def _refer(self, head: str, rest: _Chain) -> None:
        self.is_dynamic |= head in _DYNAMIC or not _unlike(rest)
        for scope in reversed(self._scopes):
            if head in scope:
                target = scope[head]
                if target is not None:
                    self.imported.add((target, rest))
                return
        self.chains.add((head, *rest))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._refer(node.id, ())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        rest: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            rest.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._refer(inner.id, tuple(rest))
        else:
            self.is_dynamic |= not _unlike(rest)
            self.visit(inner)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.loaded |= _modules(node)

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_Constant(self, node: ast.Constant) -> None:
        """Read an annotation in quotes; any other text is none of the names' form."""
        if isinstance(node.value, str) and self._in_annotation:
            try:
                self.visit(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                return

    _in_annotation = False

    def _annotation(self, node: ast.expr | None) -> None:
        if node is not None:
            self._in_annotation = True
            self.visit(node)
            self._in_annotation = False

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        for part in (node.target, node.value):
            if part is not None:
                self.visit(part)

    def _within(self, scope: _Scope, nodes: Iterable[ast.AST]) -> None:
        self._scopes.append(scope)
        for node in nodes:
            self.visit(node)
        self._scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        for argument in _arguments(node.args):
            self._annotation(argument.annotation)
        self._annotation(node.returns)
        self._defaults(node.args)
        names = dict.fromkeys(a.arg for a in _arguments(node.args))
        self._within({**names, **_bound_in(node.body)}, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        names = dict.fromkeys(a.arg for a in _arguments(node.args))
        self._within(names, [node.body])

    def _defaults(self, arguments: ast.arguments) -> None:
        for value in (*arguments.defaults, *arguments.kw_defaults):
            if value is not None:
                self.visit(value)

    def _loop(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        first, *more = node.generators
        self.visit(first.iter)  # outside: it may read a name that the loop binds
        targets = [generator.target for generator in node.generators]
        names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else []
        if not isinstance(node, ast.DictComp):
            results = [node.elt]
        self._within(dict.fromkeys(names), [*first.ifs, *more, *results])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _loop  # noqa: N815


def names_of(statement: ast.stmt) -> Names:
    """Return the names that a statement reads and does not bind itself."""
    found = Names()
    found.visit(statement)
    return found


def _unlike(names: Sequence[str]) -> bool:
    return not any(name in _DYNAMIC for name in names)


def _arguments(found: ast.arguments) -> list[ast.arg]:
    several = (found.vararg, found.kwarg)
    return [
        *(*found.posonlyargs, *found.args, *found.kwonlyargs),
        *(argument for argument in several if argument is not None),
    ]


def _imports(node: ast.Import | ast.ImportFrom) -> dict[str, _Target]:
    """Return what an import binds, by name."""
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return {
            a.asname or a.name: _Target(module, "" if a.name == _ALL else a.name)
            for a in node.names
        }
    return {
        a.asname or a.name.partition(".")[0]: _Target(
            a.name if a.asname else a.name.partition(".")[0]
        )
        for a in node.names
    }


def _bound_in(body: Iterable[ast.AST]) -> dict[str, _Target | None]:
    """Return the names that statements bind, not those of scopes within them."""
    bound: dict[str, _Target | None] = {}
    not_own: set[str] = set()
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.setdefault(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound.update(_imports(node))
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            not_own.update(node.names)
        name = getattr(node, "name", None)  # of functions, classes, caught errors
        if isinstance(name, str) and not isinstance(node, ast.alias):
            bound.setdefault(name)
        if not isinstance(node, _OWN_SCOPE):
            waiting.extend(ast.iter_child_nodes(node))
    return {name: target for name, target in bound.items() if name not in not_own}


def _bound_by(statement: ast.stmt) -> set[str]:
    return set(_bound_in([statement]))


def _span(statement: ast.stmt) -> tuple[int, int]:
    """Return the first line of a statement with its decorators, and the one after."""
    decorators = getattr(statement, "decorator_list", [])
    first = min(s.lineno for s in (statement, *decorators))
    return first - 1, statement.end_lineno or first


@lru_cache(maxsize=512)
def _parsed(name: str, text: str) -> _Module:
    defined: dict[str, list[ast.stmt]] = {}
    imported: dict[str, _Target] = {}
    loaded: set[str] = set()
    acts = []
    for statement in ast.parse(text).body:
        if _is_idle(statement):
            continue
        for_types = _names_in_test(statement) == {"TYPE_CHECKING"}
        for node in [statement, *_inside(statement)]:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                imported |= _imports(node)
                loaded |= set() if for_types else _modules(node)
        if for_types or isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        names = _bound_by(statement) - imported.keys()
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
    waiting = [] if isinstance(statement, _OWN_SCOPE) else [statement]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            yield node
            if not isinstance(node, _OWN_SCOPE) and isinstance(node, ast.stmt):
                waiting.append(node)


def _modules(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the modules that an import loads, and names that may be such."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    module = node.module or ""
    return {module, *(f"{module}.{alias.name}" for alias in node.names)}


def _below(target: _Target) -> str:
    return f"{target.module}.{target.name}"
