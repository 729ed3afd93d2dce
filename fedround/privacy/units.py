"""What a release protects: one Gaussian form of every mechanism, for one unit at a time.

Four units, which are never added or compared:

* `record`: one record of one site, its contribution replaced by nothing; the number of rows is public.
* `person`: all rows of one person at one site, replaced by nothing; the number of persons is public.
* `site`: all that one site contributes, replaced by nothing;
* `label`: the label of one record, exchanged for another; all else that is known of the record is public.

A release under one unit also has a cost under the others. A noised update protects each record and each person too, but at
twice the clip norm, because exchanging one record can turn the clipped update into any other. The same holds for a record of
a person whose mean gradient is clipped: it turns that into any other, where the person is drawn. A sum over so many rows of
each person loses one of a person's rows and gets another that waited, from one point of a ball to any other. A release that
was noised only for records has no bound for a person, whose rows nobody counted, nor for the site: its cost is infinite.

Labels that are told by a coin cost their label, and the record that they are of, an epsilon without a delta, which is added
to whatever Gaussians cost (`pure`). Elsewhere a label costs what its record costs when it is exchanged.

Noise that is shared (`SharedBy`) has two prices. The one is that of the sum: at least so many members add their share, and
nothing but the sum is seen. The other is the price *alone*: everybody else tells what it added, so that only the site's own
share is left. The first rests on others, the second on nobody; neither is ever shown for the other.

What releases cost together, `fedround.privacy.accounting` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from fedround.privacy.spec import (
    QUIETEST,
    DpFtrl,
    DpSgd,
    GaussianCounts,
    GaussianUpdate,
    Mechanism,
    NoMechanism,
    RandomisedLabels,
    RowSum,
    Unit,
    shared,
)
from fedround.privacy.tree import depth

SMALLEST_NOISE = 0.02
"""One Gaussian release with less costs more than any epsilon that is reported."""

LARGEST_NOISE = 1e6
"""More is counted as this much."""

_DOWN = 1 - 1e-12


@dataclass(frozen=True)
class Released:
    """`steps` Gaussian releases in sequence, each of a Poisson sample: the accountant's form of every mechanism."""

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1
    exchanged: bool = False
    """Whether what is protected is exchanged for another vector within the clip norm; otherwise it is replaced by nothing."""


def released(mechanism: Mechanism, unit: Unit) -> Released | None:
    """The accountant's form of a mechanism for this unit; None: nothing bounds what it costs."""
    return {"record": _for_record, "person": _for_person, "site": _for_site, "label": _for_label}[unit](mechanism)


def pure(mechanism: Mechanism, unit: Unit) -> float | None:
    """The epsilon of a mechanism that needs no delta for this unit; None: it is no such mechanism.

    Such epsilons are added to what all else costs at its delta, in whatever order and however all was chosen: what is
    (x, 0)-private is dominated by a coin that is right with chance e^x / (1 + e^x), and two such coins by one of the sum of
    their epsilons. So the sum is one more coordinate of the filter of `fedround.privacy.envelope`.
    """
    return mechanism.epsilon if isinstance(mechanism, RandomisedLabels) and unit in ("record", "label") else None


def _dominating_coins(epsilon: float) -> float:
    """The noise of a Gaussian that dominates a coin: both curves of errors meet the diagonal in the same point, and a
    Gaussian's lies below its chords (Dong, Roth and Su 2022, arXiv:1905.02383). `pure` says less, where it is asked.
    """
    return _DOWN / (2 * NormalDist().inv_cdf(1 / (1 + math.exp(-epsilon))))


def _for_record(mechanism: Mechanism) -> Released | None:  # noqa: PLR0911 - one for each kind
    """The protection of one record; None: there is none."""
    match mechanism:
        case DpSgd(sampling_rate=rate, steps=steps, rows_per_person=rows):
            return Released(_noise_of(mechanism), rate, steps, exchanged=rows is not None)
        case DpFtrl(noise_multiplier=noise, steps=steps):
            return Released(noise / math.sqrt(depth(steps)))      # a row is in one step, and in `depth` nodes at most
        case GaussianCounts(noise_std=std, rows_per_person=rows):
            return Released(std if rows is None else std / 2)     # one row's numbers go, and those of one that waited come
        case RowSum(noise_multiplier=noise, rows_per_person=rows):
            return Released(noise if rows is None else noise / 2)   # without one row of a person, the mean may be any other
        case GaussianUpdate(noise_multiplier=noise):
            return Released(noise / 2)                            # from one point of a ball to any other
        case RandomisedLabels(epsilon=epsilon):
            return Released(_dominating_coins(epsilon))
        case NoMechanism():
            return None


def _for_label(mechanism: Mechanism) -> Released | None:
    """The protection of one record's label: an exchange takes one record out, and puts one in."""
    found = _for_record(mechanism)
    if found is None or isinstance(mechanism, RandomisedLabels):
        return found
    return replace(found, exchanged=True)


def _for_person(mechanism: Mechanism) -> Released | None:
    """The protection of all rows of one person; None: there is none."""
    match mechanism:
        case DpSgd(sampling_rate=rate, steps=steps, rows_per_person=int()):
            return Released(_noise_of(mechanism), rate, steps)
        case GaussianCounts(noise_std=std, rows_per_person=int() as rows):
            return Released(std / rows)                           # all of them may be in one cell
        case RowSum(noise_multiplier=noise, rows_per_person=int()):
            return Released(noise)
        case GaussianUpdate():
            return _for_record(mechanism)
        case _:
            return None


def _for_site(mechanism: Mechanism) -> Released | None:
    """The protection of a site as a whole; None: there is no bound."""
    return Released(mechanism.noise_multiplier) if isinstance(mechanism, GaussianUpdate) else None


def _noise_of(mechanism: DpSgd) -> float:
    """Of a step, with what counting adds to its cost."""
    noise, std = mechanism.noise_multiplier, mechanism.count_noise_std
    return noise if std is None else joint_noise(noise, std)


def alone(mechanism: Mechanism) -> Mechanism:
    """What it is worth if every other member tells what it added: the share of the noise that is the site's own.

    Without shared noise, the mechanism itself. Rounded down, and never below QUIETEST: what is so quiet costs more than
    LARGEST_EPSILON anyhow.
    """
    members = getattr(mechanism, "shared_by", None)
    if members is None:
        return mechanism
    kept = {name: _share_down(noise, members) for name in ("noise_multiplier", "noise_std", "count_noise_std")
            if (noise := getattr(mechanism, name, None)) is not None}
    return mechanism.model_copy(update={**kept, "shared_by": None})


def _share_down(noise: float, members: int) -> float:
    return max(QUIETEST, _DOWN * noise / math.sqrt(members))


def noise_of_one(mechanism: Mechanism) -> float:
    """The noise of a single release, relative to the sensitivity, without the effect of sampling: of the unit for which it
    was noised.
    """
    if isinstance(mechanism, GaussianUpdate):
        return mechanism.noise_multiplier
    releases = _of_its_own(mechanism)
    return 0.0 if releases is None else releases.noise_multiplier


def _of_its_own(mechanism: Mechanism) -> Released | None:
    """The protection of a person where persons are told apart, otherwise of a record; None: there is none."""
    return _for_person(mechanism) or _for_record(mechanism)


def joint_noise(gradients: float, count_std: float) -> float:
    """The noise multiplier of one Gaussian release that costs what two of the same sample do (Andrew et al. 2021, theorem 1).

    gradients: noise multiplier of the sum of gradients. count_std: standard deviation of the noise on the count of gradients
    within the clip norm, counted as +1/2 or -1/2 each, so that one record moves it by a half.
    """
    return 1 / math.sqrt(precision_of(gradients) + precision_of(2 * count_std))


def precision_of(noise: float) -> float:
    """1 / noise², in a range where nothing overflows: half of SMALLEST_NOISE already costs everything."""
    return min(max(noise, SMALLEST_NOISE / 2), LARGEST_NOISE) ** -2


def dearest(charges: Iterable[Sequence[Mechanism]]) -> tuple[Mechanism, ...]:
    """Mechanisms that cost at least as much as those of any single charge, whatever they are composed with; exactly as much,
    if all charges are alike. A charge has one training mechanism at most, and any number of counts.

    Less noise, more steps and drawing rows more often never cost less (to draw less often is post-processing of the data).
    Where some charges told persons apart and others did not, or otherwise, what is found does not: it bounds nothing for a
    person. So with noise that is shared: where not all of it is by as many members, what is found is each site's own.
    """
    known = [tuple(charge) for charge in charges]
    if any(NoMechanism() in charge for charge in known):
        return (NoMechanism(),)
    members = {getattr(one, "shared_by", None) for charge in known for one in charge}
    if len(members) > 1:
        return dearest([tuple(map(alone, charge)) for charge in known])
    caps = {None if isinstance(one, RandomisedLabels) else one.rows_per_person for charge in known for one in charge
            if isinstance(one, DpSgd | RowSum | GaussianCounts | RandomisedLabels)}
    rows = caps.pop() if len(caps) == 1 else None
    if caps:
        known = [tuple(map(_of_records, charge)) for charge in known]
    counts = [_joint_std([one.noise_std for one in charge if isinstance(one, GaussianCounts)]) for charge in known]
    trained = [one for charge in known for one in charge if not isinstance(one, GaussianCounts)]
    updates = [one.noise_multiplier for one in trained if isinstance(one, GaussianUpdate)]
    own = _for_record if rows is None else _of_its_own
    releases = [protected for one in trained if (protected := own(one)) is not None]
    found: list[Mechanism] = []
    if updates and len(updates) == len(releases):
        found.append(GaussianUpdate(noise_multiplier=min(updates), clip_norm=1.0))
    elif releases:
        found.append(DpSgd(
            noise_multiplier=min(one.noise_multiplier for one in releases), clip_norm=1.0,
            sampling_rate=max(one.sampling_rate for one in releases), steps=max(one.steps for one in releases),
            rows_per_person=rows))
    loudest = [std for std in counts if std is not None]
    counted = [GaussianCounts(noise_std=min(loudest), rows_per_person=rows)] if loudest else []
    return tuple(shared(one, next(iter(members), None)) for one in (*found, *counted))


def _of_records(mechanism: Mechanism) -> Mechanism:
    """What costs a record at least as much, and tells no persons apart."""
    match mechanism:
        case DpSgd(rows_per_person=int()):
            return DpSgd(noise_multiplier=_noise_of(mechanism) / 2, clip_norm=1.0, sampling_rate=1.0, steps=mechanism.steps)
        case GaussianCounts(noise_std=std, rows_per_person=int()):
            return GaussianCounts(noise_std=std / 2)
        case RowSum(noise_multiplier=noise, rows_per_person=int()):
            return RowSum(noise_multiplier=noise / 2)
        case _:
            return mechanism


def _joint_std(stds: Sequence[float]) -> float | None:
    """The noise of one table of counts that costs what these do together, rounded down; None: there are none."""
    if len(stds) < 2:
        return stds[0] if stds else None
    return (1 - 1e-12) / math.sqrt(math.fsum(std ** -2 for std in stds))
