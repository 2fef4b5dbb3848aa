"""A profile read from its file: YAML without surprises, overrides, faults in words.

A profile is a YAML file in `notebooks/profiles/`; unknown keys, wrong types and values
out of range are refused with one sentence that says what to mend.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from minddiff_utils.core.errors import ConfigError, in_a_line
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.reading import reading

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["load_profile", "parse_yaml"]


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _freeze(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _freeze(item) for key, item in value.items()}
    return value


def _nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted overrides as nested ones.

    Raises
    ------
    ConfigError
        One override sets a group, another a field of it; or a name is empty.
    """
    nested: dict[str, Any] = {}
    for dotted, value in overrides.items():
        *parents, leaf = str(dotted).split(".")
        if not all((*parents, leaf)):
            raise ConfigError(
                f"The override {in_a_line(repr(dotted))} names no field: write it as"
                " stage2.paper.n_iter."
            )
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise _contradiction(parent, node)
        given = dict(value) if isinstance(value, Mapping) else value
        known = node.get(leaf, {})
        if leaf in node and not (isinstance(known, dict) and isinstance(given, dict)):
            raise _contradiction(leaf, given)
        node[leaf] = _merge(known, given) if isinstance(given, dict) else given
    return nested


def _contradiction(key: str, value: object) -> ConfigError:
    return ConfigError(
        f"One override sets {in_a_line(key)} to {in_a_line(repr(value))}, another sets"
        " a field of it: keep one of the two."
    )


class _Loader(yaml.SafeLoader):
    """YAML whose plain values mean what they mean in Python, or are text.

    YAML 1.1 reads 010 as 8, 1:30 as 90, `on` as true and 1e-3 as text.
    """


_Loader.yaml_implicit_resolvers = {}


def _number(loader: Any, node: Any) -> int | float:
    text = str(loader.construct_scalar(node))
    try:
        return int(text, 0)
    except ValueError:
        pass
    if re.fullmatch(r"[-+]?0[\d_]+", text):
        raise ValueError(f"{text}: a number starts with no 0, and text has quotes")
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_DIGITS = r"\d(?:_?\d)*"
for _tag, _form, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|None|", ["~", "n", "N", ""]),
    (
        "number",
        rf"[-+]?(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|\.inf|\.nan"
        rf"|(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][-+]?{_DIGITS})?)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_form})\Z", re.ASCII), _first
    )
for _tag in ("number", "int"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)
_Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda loader, node: float(_number(loader, node))
)


#: What PyYAML raises, beside its own errors, at values that are none of their type.
_NOT_YAML = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)


def parse_yaml(text: str, origin: str) -> Any:
    """Return what `text` holds as YAML; no code, no aliases and no key twice.

    Parameters
    ----------
    text : str
    origin : str
        What the text is, as the first words of a sentence on what is wrong with it.

    Raises
    ------
    ConfigError
        The text is not valid YAML; one of its mappings has a key twice, of which YAML
        would take the last; or it uses an alias, by which a few lines can stand for
        gigabytes or hold themselves.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        _check_nodes(root)
        return None if root is None else loader.construct_document(root)
    except _NOT_YAML as error:
        deep = isinstance(error, RecursionError)
        words = "it is nested too deeply" if deep else " ".join(str(error).split())
        raise ConfigError(
            f"{origin} is not valid YAML ({words[:300]}): mend it there."
        ) from error


def _check_nodes(root: Any) -> None:
    """Raise ValueError if a node is there twice, or a mapping has a key twice."""
    seen, waiting = set[int](), [] if root is None else [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            raise ValueError(f"an alias{node.start_mark}")
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            if twice:
                raise ValueError(f"the key {twice[0]!r} twice{node.start_mark}")
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def load_profile(name: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read the profile `name` and apply `overrides` (`{"stage2.paper.n_iter": 5}`).

    Raises
    ------
    ConfigError
        Unknown profile, unreadable YAML, unknown key, wrong type or value; the sentence
        says whether the file or an override is to be mended.
    """
    folder = project_root() / "notebooks" / "profiles"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not known:
        raise ConfigError(
            f"{folder} holds no profiles, so this package runs apart from its"
            " repository: install it from there with pip install -e ."
        )
    if name not in known:
        raise ConfigError(
            f"Profile {in_a_line(repr(name))} does not exist in {folder}: use one of"
            f" {', '.join(known)}."
        )
    path, nested = folder / f"{name}.yaml", _nest(overrides or {})
    profile = _resolve(name, path, nested)
    if profile.name != name:
        place = "the override name" if "name" in nested else path
        raise ConfigError(
            f"Profile {name!r}, name is {profile.name!r}, but must be that of the file:"
            f" mend {place}."
        )
    return profile


def _resolve(name: str, path: Path, overrides: Mapping[str, Any]) -> Profile:
    """Return the profile in the file at `path` under nested `overrides`."""
    no_yaml = "is not valid YAML"
    with reading(path, ConfigError, found=no_yaml, remedy="save it as UTF-8"):
        text = path.read_text(encoding="utf-8")
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"{path} must hold keys and values, not {type(raw).__name__}: restore it."
        )
    try:
        return Profile.model_validate(_freeze(_merge(raw, overrides)))
    except ValidationError as error:
        first = error.errors()[0]
        key = in_a_line(".".join(str(part) for part in first["loc"]))
        group: Any = raw
        for part in first["loc"][:-1]:
            group = group.get(part) if isinstance(group, Mapping) else None
        in_file = first["type"] == "missing" and isinstance(group, Mapping)
        origin = "" if in_file else _origin(first, overrides)
        remedy = f"mend the override {in_a_line(origin)}" if origin else f"mend {path}"
        raise ConfigError(
            f"Profile {name!r}, {key or 'as a whole'} {_fault(first)}: {remedy}."
        ) from error


def _origin(error: "ErrorDetails", overrides: Mapping[str, Any]) -> str:
    """Return the override that `error` is about, empty where it is the file."""
    node: Any = overrides
    reached: list[str] = []
    loc = error["loc"][:-1] if error["type"] == "missing" else error["loc"]
    for part in loc:
        if not isinstance(node, Mapping):
            break  # inside an override's list
        if part not in node:
            return ""
        node = node[part]
        reached.append(str(part))
    while isinstance(node, Mapping) and len(node) == 1:  # a rule over several fields
        key = next(iter(node))
        node = node[key]
        reached.append(str(key))
    return ".".join(reached)


def _fault(error: "ErrorDetails") -> str:
    """Return what was given and what is allowed, as the end of a sentence."""
    kind, words = error["type"], error["msg"]
    if kind == "missing":
        return "is missing, but has no default"
    if kind == "extra_forbidden":
        return f"is no key of a profile ({_known_keys(error['loc'][:-1])})"
    if kind == "value_error":
        return f"does not fit: {words.removeprefix('Value error, ')}"
    for prefix in ("Input should be ", "Input should "):
        words = words.removeprefix(prefix)
    known = {
        "model_type": "a group of keys",
        "tuple_type": "a list",
        "too_short": "longer",
        "invalid_key": "a name",
    }
    words = known.get(kind, words)
    given = error["input"]
    value = list(given) if isinstance(given, tuple) else given
    return f"is {in_a_line(repr(value))}, but must be {words}"


def _known_keys(group: Sequence[int | str]) -> str:
    """Return the keys of a group of the profile, in words."""
    model: type[BaseModel] = Profile
    for part in group:
        annotation = model.model_fields[str(part)].annotation
        kinds = [annotation, *get_args(annotation)]  # a group may be optional
        model = next(
            k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)
        )
    where = ".".join(map(str, group))
    return f"{where or 'it'} has {', '.join(model.model_fields)}"
