"""Which names a statement reads and which it binds, from its syntax tree.

Names are read also in annotations and as attributes; those that a function, a loop or
an import within the statement binds are not the statement's.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "ALL",
    "OWN_SCOPE",
    "Chain",
    "Names",
    "Target",
    "bound_by",
    "imports_of",
    "modules_of",
    "names_of",
]

#: What nodes open a scope of their own.
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
OWN_SCOPE = (*_FUNCTIONS, *_LOOPS, ast.ClassDef)
#: Calls that import by a name made at run time.
_DYNAMIC = ("import_module", "__import__")
#: In the place of a name: everything in the module.
ALL = "*"


@dataclass(frozen=True)
class Target:
    """What an import binds: a module, or a name in it."""

    module: str
    name: str = ""

    @property
    def chain(self) -> tuple[str, ...]:
        """Return the name as a chain; empty for a module."""
        return (self.name,) if self.name else ()


#: Names of a scope; those of imports with what they stand for.
Scope = Mapping[str, Target | None]
#: A name, and attributes of it.
Chain = tuple[str, ...]


class Names(ast.NodeVisitor):
    """Collects the names that a statement reads and that it does not bind itself."""

    def __init__(self) -> None:
        self.chains: set[Chain] = set()
        self.imported: set[tuple[Target, Chain]] = set()
        self.loaded: set[str] = set()
        self.is_dynamic = False
        self._scopes: list[Scope] = []

    def _refer(self, head: str, rest: Chain) -> None:
        self.is_dynamic |= head in _DYNAMIC or not _unlike(rest)
        for scope in reversed(self._scopes):
            if head in scope:
                target = scope[head]
                if target is not None:
                    self.imported.add((target, rest))
                return
        self.chains.add((head, *rest))

    def visit_Name(self, node: ast.Name) -> None:
        """Read a name."""
        if isinstance(node.ctx, ast.Load):
            self._refer(node.id, ())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Read a name with its attributes."""
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
        """Note what is loaded."""
        self.loaded |= modules_of(node)

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
        """Read a variable's annotation and value."""
        self._annotation(node.annotation)
        for part in (node.target, node.value):
            if part is not None:
                self.visit(part)

    def _within(self, scope: Scope, nodes: Iterable[ast.AST]) -> None:
        self._scopes.append(scope)
        for node in nodes:
            self.visit(node)
        self._scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Read a function, but for the names that it binds."""
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
        """Read a function without a name."""
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


def imports_of(node: ast.Import | ast.ImportFrom) -> dict[str, Target]:
    """Return what an import binds, by name."""
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return {
            a.asname or a.name: Target(module, "" if a.name == ALL else a.name)
            for a in node.names
        }
    return {
        a.asname or a.name.partition(".")[0]: Target(
            a.name if a.asname else a.name.partition(".")[0]
        )
        for a in node.names
    }


def _bound_in(body: Iterable[ast.AST]) -> dict[str, Target | None]:
    """Return the names that statements bind, not those of scopes within them."""
    bound: dict[str, Target | None] = {}
    not_own: set[str] = set()
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.setdefault(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound.update(imports_of(node))
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            not_own.update(node.names)
        name = getattr(node, "name", None)  # of functions, classes, caught errors
        if isinstance(name, str) and not isinstance(node, ast.alias):
            bound.setdefault(name)
        if not isinstance(node, OWN_SCOPE):
            waiting.extend(ast.iter_child_nodes(node))
    return {name: target for name, target in bound.items() if name not in not_own}


def bound_by(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds."""
    return set(_bound_in([statement]))


def modules_of(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the modules that an import loads, and names that may be such."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    module = node.module or ""
    return {module, *(f"{module}.{alias.name}" for alias in node.names)}
