"""`fedround privacy plan`: a promise in other words, for each site."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fedround.spoken import how_many
from fedround_cli.output import out

if TYPE_CHECKING:
    from fedround.privacy.profile import Profile


@dataclass(frozen=True)
class Worth:
    """What a campaign's promise says at one site, besides its epsilon."""

    profile: Profile
    delta_rows: float
    """delta_dp times the number of training rows: so many of them the promise would let leak outright."""
    rows_of_person: int | None
    person: float | None
    """Epsilon of the person with so many rows who pays most."""


def worth(epsilon_at: Callable[[float], float], delta_dp: float, rows: int, rows_of_person: int | None,
          epsilon_of_person: Callable[[int], float]) -> Worth:
    """epsilon_at: of the record that pays most (or the site), by delta_dp. epsilon_of_person: by how many rows one has."""
    from fedround.privacy.profile import profile

    person = None if rows_of_person is None else epsilon_of_person(rows_of_person)
    return Worth(profile(epsilon_at, delta_dp), delta_dp * rows, rows_of_person, person)


def show(known: Mapping[str, Worth]) -> None:
    """Three lines of at most 80 characters for each site."""
    from fedround.privacy.profile import in_words, upward

    for site, one in known.items():
        person = ("" if one.person is None or one.rows_of_person is None else
                  f"; a person with {how_many(one.rows_of_person, 'row')}: ε {upward(one.person, 2)}")
        out.print(f"{site}: δ · rows = {one.delta_rows:.2g}{person}", highlight=False, markup=False)
        for line in in_words(one.profile):
            out.print(line, highlight=False)


def as_json(one: Worth) -> dict[str, Any]:
    """For scripts; null where nothing bounds it."""
    profile = asdict(one.profile)
    profile["epsilons"] = {f"{delta:g}": _number(eps) for delta, eps in one.profile.epsilons.items()}
    profile["mu"] = _number(one.profile.mu)
    person = None if one.rows_of_person is None else {"rows": one.rows_of_person, "epsilon": _number(one.person)}
    return {"profile": profile, "delta_rows": one.delta_rows, "person": person}


def _number(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
