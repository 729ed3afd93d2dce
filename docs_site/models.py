"""Values as tables: every key, what it may be, its default, and the words that the code says of it."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from fedround import values

Schema = dict[str, Any]
Model = type[BaseModel]


def reachable(*first: Model) -> list[Model]:
    """The models and all that their fields hold, each once, in the order in which a reader meets them."""
    found: list[Model] = []
    waiting = list(first)
    while waiting:
        model = waiting.pop(0)
        if model not in found:
            found.append(model)
            waiting += _held_by(model)
    return found


@functools.cache
def _held_by(model: Model) -> tuple[Model, ...]:
    return tuple(inner for field in model.model_fields.values() for inner in _models_in(field.annotation))


def _models_in(annotation: Any) -> Iterator[Model]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def titles(models: list[Model]) -> dict[Model, str]:
    """What each is called on its page: its name, and where two have the same, also what they are about."""
    often = Counter(model.__name__ for model in models)
    return {model: model.__name__ + (f" ({model.__module__.split('.')[1]})" if often[model.__name__] > 1 else "")
            for model in models}


def section(model: Model, called: Mapping[Model, str]) -> str:
    """A heading, what the class promises, and a table of its keys. called: `titles` of the page."""
    words, said = _told(model)
    lines = [f"### {called[model]} {{ #{anchor(called[model])} }}", "", words, ""]
    if not model.model_fields:
        return "\n".join([*lines, "It has no keys.", ""])
    for kind in model.__mro__[1:]:
        if kind is not BaseModel and issubclass(kind, BaseModel):
            said = _told(kind)[1] | said        # its own words come first
    said |= _said_of_fields(model)
    schema = model.model_json_schema(mode="validation")
    inner = {key: found | _title(key, model, called) for key, found in schema.get("$defs", {}).items()}
    lines += ["| key | what it may be | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(f"| `{name}` | {_cell(_in_words(schema['properties'][name], inner))} | {_default(field)} "
                     f"| {_cell(said.get(name, ''))} |")
    return "\n".join([*lines, ""])


def anchor(title: str) -> str:
    """Where a page has the section."""
    return re.sub(r"\W+", "-", title.lower()).strip("-_")


def _title(key: str, model: Model, called: Mapping[Model, str]) -> Schema:
    """The title of what a schema calls `key`: a class's name, or with its module where two have the same."""
    return next(({"title": called[one]} for one in reachable(model)
                 if key in {one.__name__, f"{one.__module__}.{one.__qualname__}".replace(".", "__")}), {})


def _told(model: Model) -> tuple[str, dict[str, str]]:
    """A class's own words, and what they say of its keys in lines that begin with `key: ` or `key, key: `."""
    words, said, keys = list[str](), dict[str, str](), list[str]()
    for line in (inspect.getdoc(model) or "").splitlines():
        begins = re.match(r"([a-z_]+(?:, [a-z_]+)*): ", line)
        if begins and set(names := begins[1].split(", ")) <= model.model_fields.keys():
            keys = names
            said |= dict.fromkeys(keys, line[begins.end():])
        elif keys and line.strip():
            said |= {key: f"{said[key]} {line.strip()}" for key in keys}
        else:
            keys = []
            words.append(line)
    return "\n".join(words).strip(), said


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if value is PydanticUndefined:
        value = field.default_factory()
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        said = value.model_dump(mode="json", exclude_defaults=True)
        name = getattr(value, "name", None)
        return f"`{name}`" if isinstance(name, str) else ("its defaults" if not said else _cell(f"`{said}`"))
    return _cell(f"`{_json(value)}`")


def _said_of_fields(model: Model) -> dict[str, str]:
    """The text that stands below a field in the source, its class's or that of a class before it."""
    said: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind is BaseModel or not issubclass(kind, BaseModel):
            continue
        said |= _below(_classes(kind.__module__)[kind.__name__].body)
    return said


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module, by their names, as its file has them."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _below(statements: list[ast.stmt]) -> dict[str, str]:
    return {before.target.id: inspect.cleandoc(text.value.value)
            for before, text in pairwise(statements)
            if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
            and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)}


# -- JSON schema in words ----------------------------------------------------------------------------------------------

def named_texts() -> dict[str, str]:
    """The kinds of text that have a name of their own, and what they are, by their pattern."""
    tree = ast.parse(inspect.getsource(values))
    said = {before.targets[0].id: str(text.value.value) for before, text in pairwise(tree.body)
            if isinstance(before, ast.Assign) and isinstance(before.targets[0], ast.Name)
            and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)}
    patterns = {name: TypeAdapter(getattr(values, name)).json_schema().get("pattern") for name in said
                if get_args(getattr(values, name))[:1] == (str,)}
    return {pattern: f"{name}: {said[name]}" for name, pattern in patterns.items() if pattern}


NAMED_TEXTS = named_texts()


def _in_words(schema: Schema, inner: Schema) -> str:
    """inner: what a `$ref` can name."""
    if "$ref" in schema:
        found = inner[schema["$ref"].rpartition("/")[2]]
        return f"[{found['title']}](#{anchor(found['title'])})" if "properties" in found else _in_words(found, inner)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_in_words(one, inner) for one in schema[key] if one.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{_json(one)}`" for one in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind in {"array", "object"}:
        return _many_in_words(schema, inner)
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", None: "anything"}
    return _text_in_words(schema) if kind == "string" else words[kind] + _bounds(schema)


def _of(schema: Schema | bool, inner: Schema) -> str:
    return _in_words(schema, inner) if isinstance(schema, dict) else "anything"


def _many_in_words(schema: Schema, inner: Schema) -> str:
    if schema["type"] == "object":
        return f"a table of {_of(schema.get('additionalProperties', True), inner)}"
    if "prefixItems" in schema:
        return "list of " + ", ".join(_in_words(one, inner) for one in schema["prefixItems"])
    least, most = schema.get("minItems"), schema.get("maxItems")
    size = "" if least is None and most is None else f" ({_between(least, most)})"
    return f"list{size} of {_of(schema.get('items', True), inner)}"


def _text_in_words(schema: Schema) -> str:
    pattern = schema.get("pattern")
    if pattern in NAMED_TEXTS:
        name = NAMED_TEXTS[pattern].partition(":")[0]
        return f"[{name}](#kinds-of-text)"
    most = f" of at most {schema['maxLength']} signs" if "maxLength" in schema else ""
    return f"text{most}" + (f" like `{pattern}`" if pattern else "")


def _bounds(schema: Schema) -> str:
    words = [word.format(_json(schema[key])) for key, word in (
        ("minimum", "at least {}"), ("exclusiveMinimum", "above {}"), ("maximum", "at most {}"),
        ("exclusiveMaximum", "below {}")) if key in schema]
    return f", {', '.join(words)}" if words else ""


def _between(least: int | None, most: int | None) -> str:
    if least == most:
        return str(least)
    return f"{least or 0} to {most}" if most is not None else f"at least {least}"


def _json(value: object) -> str:
    return TypeAdapter(Any).dump_json(value).decode()
