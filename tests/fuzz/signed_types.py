"""Every type of signed document, found by itself, and values of each of them, made from what the type says."""

from __future__ import annotations

import importlib
import math
import pkgutil
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

import fedround
from fedround.aggregation.rules import TrimmedMean
from fedround.errors import ContractError
from fedround.federation import Federation
from fedround.statistics import Release, Scores
from fedround.terms import Agreed
from fedround.values import Digest, PublicKey, Signature, Signed, parse

JsonValue = Any
_UNIONS = (Union, types.UnionType)
EDGES = (5e-324, 2.2250738585072014e-308, 1e-7, 1.0, 2.0 ** 53 - 1, 2.0 ** 53, 2.0 ** 53 + 2, 1e16, 1e20,
         999999999999999868928.0, 1e21, 1e60, 1.7976931348623157e308)
KEYS = tuple(f"ed25519:{n:02x}{'5' * 62}" for n in range(1, 6))
_TEXTS: Mapping[str, st.SearchStrategy[str]] = {
    get_args(kind)[1].pattern: strategy for kind, strategy in (
        (Digest, st.sampled_from([digit * 64 for digit in "0a7"])), (PublicKey, st.sampled_from(KEYS)),
        (Signature, st.sampled_from(["ab" * 64, "0" * 128])))}


def signed_types() -> dict[str, type[Signed]]:
    """By kind, of the whole core: a new one needs no line here."""
    for module in pkgutil.walk_packages(fedround.__path__, "fedround."):
        if not module.name.startswith("fedround.simulation"):
            importlib.import_module(module.name)
    found = [one for one in _below(Signed) if one.__module__.startswith("fedround.")]
    return {one.kind: one for one in found if "kind" in one.__dict__}


def _below(kind: type[Signed]) -> Iterator[type[Signed]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


# -- what a type says of its numbers -----------------------------------------------------------------------------------


def numbers_of(kind: Any, said: tuple[Any, ...] = (), where: str = "", above: tuple[Any, ...] = ()) -> Iterator[
        tuple[str, type, dict[str, float]]]:
    """Where each number of a type is, whether it is whole, and its bounds."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *more = get_args(kind)
        yield from numbers_of(inner, (*said, *more), where, above)
    elif origin in _UNIONS:
        for one in get_args(kind):
            yield from numbers_of(one, said, where, above)
    elif origin in (tuple, dict):
        for one in get_args(kind):
            yield from numbers_of(one, (), f"{where}[]", above)
    elif isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in above:
        for name, field in kind.model_fields.items():
            yield from numbers_of(field.annotation, tuple(field.metadata), f"{kind.__name__}.{name}", (*above, kind))
    elif kind in (int, float):
        yield where, kind, _bounds(said)


def _bounds(said: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in said:
        if isinstance(one, FieldInfo):
            found |= _bounds(tuple(one.metadata))
        found |= {name: value for name in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
                  if (value := getattr(one, name, None)) is not None}
    return found


# -- values ------------------------------------------------------------------------------------------------------------


@cache
def instances(kind: type[BaseModel]) -> st.SearchStrategy[JsonValue]:
    """JSON of values of this type. Where fields must fit each other, what does not fit is thrown away, type by type."""
    if kind is Release:
        return _releases()
    if kind is Federation:          # its parts must fit each other in more ways than chance finds
        return _federations()
    if kind is Agreed:
        return _federations().map(lambda said: parse(Federation, {     # of several models a plan's tensors would say so, too
            **said, "evaluation": {**said["evaluation"], "clusters": 1}}, "it").agreed().model_dump(mode="json"))
    all_of_it = {name: _of(field.annotation, tuple(field.metadata)) for name, field in kind.model_fields.items()}
    required = {name for name, field in kind.model_fields.items()      # a union is told apart by its kinds
                if field.is_required() or get_origin(field.annotation) is Literal}
    drawn = st.fixed_dictionaries({name: all_of_it[name] for name in all_of_it if name in required},
                                  optional={name: all_of_it[name] for name in all_of_it if name not in required})
    checked = kind.__pydantic_decorators__.model_validators or any(
        isinstance(said, AfterValidator) for field in kind.model_fields.values() for said in field.metadata)
    return drawn.filter(lambda found: _fits(kind, found)) if checked else drawn


def _fits(kind: type[Any], found: JsonValue) -> bool:
    try:
        parse(kind, found, "it")
    except ContractError:
        return False
    return True


def _releases() -> st.SearchStrategy[JsonValue]:
    numbers = st.floats(-1e15, 1e15, allow_nan=False)
    return st.fixed_dictionaries({
        "statistic": instances(Scores).map(lambda scores: {**scores, "bins": 2, "edges": []}),
        "numbers": st.lists(numbers, min_size=4, max_size=4),
        "mechanism": st.one_of(st.just({"kind": "none"}), st.just({"kind": "gaussian_counts", "noise_std": 2.5}))})


def _federations() -> st.SearchStrategy[JsonValue]:
    fields = Federation.model_fields
    weights = _of(*_said(fields["sites"].annotation, "weight"))
    return st.builds(lambda first, second, evaluation, optimizer, start: {
        "name": "banks", "quorum": 1, "privacy": {"unit": "none"}, "coordinator": KEYS[0], "recipe": "r",
        "recipe_digest": "0" * 64, "contract_digest": "1" * 64, "start": start, "evaluation": evaluation,
        "optimizer": optimizer,
        "aggregation": {"rule": TrimmedMean(f=0).model_dump()},
        "sites": [{"name": "lund", "key": KEYS[1], "weight": first}, {"name": "oslo", "key": KEYS[2], "weight": second}]},
        weights, weights, _of(fields["evaluation"].annotation, ()), _of(fields["optimizer"].annotation, ()),
        _of(fields["start"].annotation, ())).map(lambda said: said if _fits(Federation, said) else {
            **said, "start": None, "optimizer": {"name": "fedavg"}})


def _said(kind: Any, name: str) -> tuple[Any, tuple[Any, ...]]:
    entry = next(one for one in get_args(get_args(kind)[0] if get_origin(kind) is Annotated else kind) if one is not Ellipsis)
    field = entry.model_fields[name]
    return field.annotation, tuple(field.metadata)


def _of(kind: Any, said: tuple[Any, ...]) -> st.SearchStrategy[JsonValue]:
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *more = get_args(kind)
        return _of(inner, (*said, *more))
    if origin in _UNIONS:
        return st.one_of(*(_of(one, said) for one in get_args(kind)))
    if origin is Literal:
        return st.sampled_from(get_args(kind))
    if origin is tuple:
        bounds = _bounds(said)
        least = int(bounds.get("min_length", 0))
        return st.lists(_of(get_args(kind)[0], ()), min_size=least, max_size=min(max(least, 2), bounds.get("max_length", 2)))
    if kind is type(None):
        return st.none()
    if kind is bool:
        return st.booleans()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return st.deferred(lambda: instances(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from([one.value for one in kind])
    return _scalar(kind, _bounds(said))


def _scalar(kind: Any, bounds: dict[str, Any]) -> st.SearchStrategy[JsonValue]:
    if kind is int:
        low, high = bounds.get("ge", -2 ** 53 + 1), bounds.get("le", 2 ** 53 - 1)
        return st.integers(low, high) | st.sampled_from([low, high])
    if kind is float:
        low, high = bounds.get("ge", bounds.get("gt", -math.inf)), bounds.get("le", bounds.get("lt", math.inf))
        without = {"exclude_min": "gt" in bounds, "exclude_max": "lt" in bounds}
        edges = [edge for edge in EDGES if low < edge < high]
        drawn = st.floats(low, high, allow_nan=False, allow_infinity=False, **without)
        return drawn | st.sampled_from(edges) if edges else drawn
    if (pattern := bounds.get("pattern")) is not None:
        return _TEXTS[pattern] if pattern in _TEXTS else st.from_regex(
            pattern, fullmatch=True, alphabet=st.characters(codec="utf-8"))
    return st.text(max_size=min(20, bounds.get("max_length", 20)))
