"""What a federation agrees on about learning: what a site does in a round, and how the server takes the step.

In TOML::

    [training]
    local_steps = 10
    algorithm = {name = "fedprox", mu = 0.1}
    partial = "normalise"

    [optimizer]
    name = "fedyogi"
    learning_rate = 0.03

What the values compute stands with them (`fedround.learning.algorithms`) or beside their code: `fedround.learning.descent`
for sites, `fedround.optimizers` for the server. docs/algorithms.md lists them all.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, TypeAdapter, model_validator

from fedround.codec import Schema
from fedround.learning.algorithms import Algorithm, Plain, Vectors
from fedround.learning.algorithms.base import Float32
from fedround.learning.augmentation import Augmentation
from fedround.learning.decay import Plateau, Rule
from fedround.learning.foreign.spec import Foreign
from fedround.learning.learner import ClassWeights, Learner
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.calibration import sampling_rate
from fedround.privacy.spec import GradientPrivacy, Privacy, SitePrivacy
from fedround.spoken import how_many
from fedround.values import Value

MAX_STEPS, MAX_BATCH = 10_000, 65_536
Decay = Annotated[float, Field(ge=0, lt=1)]

# -- at a site ---------------------------------------------------------------------------------------------------------


class LocalTraining(Learner):
    """What one site does in one round: `local_steps` steps on batches of (expected) `batch_size` rows.

    optimizer: "sgd", with momentum if there is any, or "adam" (Kingma and Ba 2015, arXiv:1412.6980, with its constants 0.9,
    0.999, 1e-8), begun anew in every round.
    partial: what a site sends whose time is up before its last step. "refuse": nothing. "keep": the steps that it did.
    "normalise": these, scaled to as many as were asked, so that slow sites count as fast ones do (FedNova: Wang et al. 2020,
    arXiv:2007.07481). The privacy of all steps is paid in any case.
    augmentation: rows are learnt from as copies that are changed by chance; a row's copies are one record.
    rule: how the learning rate or the steps change from round to round; None: they do not.
    fewest_steps: a slow site may do fewer than `local_steps`, as many at least. It decides at its first round of a run, by
    its own measured speed, and its noise is calibrated to as many. They count like the steps of a site whose time is up:
    `partial` says how, and never more than all. None: nobody may.
    covered: how many steps the privacy of a round covers, where the rule has lowered `local_steps`. Only plans say it.
    """

    local_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 10
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.1
    momentum: Decay = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    algorithm: Algorithm = Plain()
    partial: Literal["refuse", "keep", "normalise"] = "refuse"
    class_weights: ClassWeights = ()
    augmentation: Augmentation | None = None
    rule: Rule | None = None
    fewest_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    covered: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.fewest_steps is not None and self.fewest_steps > self.local_steps:
            raise ValueError(f"fewest_steps {self.fewest_steps} is above local_steps {self.local_steps}")
        if self.fewest_steps is not None and self.partial == "refuse":
            raise ValueError("fewest_steps: partial = 'refuse' lets nobody send fewer steps; say 'keep' or 'normalise'")
        if self.covered is not None and self.covered < self.local_steps:
            raise ValueError(f"covered {self.covered} is below local_steps {self.local_steps}")
        return self

    @property
    def paid(self) -> int:
        """How many steps the privacy of a round covers."""
        return self.local_steps if self.covered is None else self.covered

    @property
    def fewest_paid(self) -> int:
        """How many steps of a site it covers at least."""
        return self.paid if self.fewest_steps is None else self.fewest_steps

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        adam = self.optimizer == "adam"
        if adam and self.momentum > 0:
            raise ValueError("adam keeps moments of its own: momentum goes with the optimizer 'sgd' only")
        if adam and self.partial == "normalise":
            raise ValueError("partial = 'normalise' scales by what each gradient counts, which adam does not fix beforehand: "
                             "take 'sgd', or partial = 'keep'")
        if (why_not := self.algorithm.objection(self)) is not None:
            raise ValueError(why_not)
        return self

    def objection_to(self, privacy: Privacy) -> str | None:
        """As `Learner`."""
        if self.covered is not None:
            return "training.covered is what plans say: agree on local_steps, and on a rule"
        if isinstance(self.rule, Plateau) and isinstance(privacy, SitePrivacy):
            return ("training.rule: a plateau is seen in the sites' scores, and under the unit 'site' no counts of scores "
                    "leave: agree on a decay")
        if self.fewest_steps is not None and not isinstance(privacy, GradientPrivacy):
            return ("fewest_steps: noise on gradients is calibrated to a site's own number of steps, and there is none here: "
                    "partial alone lets slow sites send what they did")
        return None

    def at_site(self, shift_D: Float32 | None, sent_D: Float32) -> Vectors:
        """As `Learner`: the algorithm's."""
        return self.algorithm.at_site(shift_D, sent_D, self)

    def at_server(self, served: Vectors, aggregate_D: Float32, share: float) -> Vectors:
        """As `Learner`: the algorithm's."""
        return self.algorithm.at_server(served, aggregate_D, self, share)

    def sampling_rate(self, rows: int) -> float:
        """The chance of each row to be in a step's batch, so that `batch_size` rows are expected (at most all of them)."""
        return sampling_rate(self.batch_size, rows)

    @property
    def is_linear(self) -> bool:
        """Whether a site's change is linear in this round's gradients and in nothing else that is noised: then the law of its
        noise follows from the law of theirs.
        """
        return self.optimizer == "sgd" and self.algorithm.law_is_known

    @property
    def in_words(self) -> str:
        """For titles."""
        return f"{how_many(self.local_steps, 'step')} on batches of {how_many(self.batch_size, 'row')}"

    def sent(self, model: Schema, *, noised: bool) -> Schema:
        """The tensors of an update: the model's."""
        return model


NAMED: dict[str, type[Trees | UnionStep | Foreign]] = {
    str(one.model_fields["name"].default): one for one in (Trees, UnionStep, Foreign)}
"""Learners by the name that they have in a document. Steps have none."""


def _learner(said: Any) -> str:
    name = said.get("name") if isinstance(said, dict) else getattr(said, "name", None)
    return name if name in NAMED else "steps"


Training = Annotated[Annotated[LocalTraining, Tag("steps")] | Annotated[Trees, Tag("trees")]
                     | Annotated[UnionStep, Tag("union_step")] | Annotated[Foreign, Tag("foreign")],
                     Discriminator(_learner)]
"""How a model is learnt. A new learner is a `Learner` like these; mypy names the places that must say what they do with it:
what it cannot be agreed with (`fedround.learning.agreed`), its noise (`fedround.rounds.campaign`), what a site does for it
(`fedround.learning.learn`), what a secure sum of it says (`fedround.rounds.summed`), and what the server makes of what sites
send (`fedround.rounds.server.moved`)."""
TRAINING: TypeAdapter[Training] = TypeAdapter(Training)
"""Reads any of them."""


# -- of which parts a model is made --------------------------------------------------------------------------------------

Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?-]{1,200}$")]
"""Of parameter names: * stands for any characters, ? for one."""


class Parts(Value):
    """Which parts of a model do not travel; all others do.

    private: trained at every site beside the others, and kept there: the last layers (FedPer: Arivazhagan et al. 2019,
    arXiv:1912.00818) or the normalisation layers, with their statistics (FedBN: Li et al. 2021, arXiv:2102.07623).
    frozen: trained by nobody. Parameters that the recipe's model does not train (requires_grad False: adapters of
    `fedround.learning.lora` have such a base) are frozen without being named.

    Privacy. Under the unit `record` a row's gradient is clipped over all trained parameters, the private part included, and
    all of it is noised. The reason: later updates are computed with the private part. If it were not noised, the updates
    would reveal the rows, however much noise they get. So the part that stays is as private as what leaves. Under the unit
    `site` the private part is trained without noise: what one round releases is a vector of bounded length, whatever the
    site computed it from, and the noise hides any such vector; the promise is about all that the site contributes.
    """

    private: tuple[Pattern, ...] = ()
    frozen: tuple[Pattern, ...] = ()


# -- at the server -----------------------------------------------------------------------------------------------------


class FedAvg(Value):
    """velocity = momentum velocity + aggregate; model += learning_rate velocity (McMahan et al. 2017, arXiv:1602.05629;
    with momentum: FedAvgM, Hsu et al. 2019, arXiv:1909.06335).
    """

    name: Literal["fedavg"] = "fedavg"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    momentum: Decay = 0.0


class _Adaptive(Value):
    """Algorithm 2 of Reddi et al. 2021 (arXiv:2003.00295): m = beta1 m + (1 - beta1) aggregate;
    model += learning_rate m / (sqrt(v) + tau). They differ in v, which begins at tau².

    The aggregate's own noise enters v, squared: where noise drowns a coordinate's signal, its steps become short.
    Convergence under noise is not promised.
    """

    learning_rate: Annotated[float, Field(gt=0, le=10)]
    """About how far one coordinate moves in a round: far below 1."""
    beta1: Decay = 0.9
    tau: Annotated[float, Field(ge=1e-8, le=1)] = 1e-3


class FedAdagrad(_Adaptive):
    """v += aggregate². Steps only ever become shorter; for gradients that are rare."""

    name: Literal["fedadagrad"] = "fedadagrad"
    beta1: Decay = 0.0


class FedAdam(_Adaptive):
    """v = beta2 v + (1 - beta2) aggregate²."""

    name: Literal["fedadam"] = "fedadam"
    beta2: Decay = 0.99


class FedYogi(_Adaptive):
    """v -= (1 - beta2) aggregate² sign(v - aggregate²): v moves by what one round brings, never by its own size. After a loud
    round it falls more slowly than FedAdam's.
    """

    name: Literal["fedyogi"] = "fedyogi"
    beta2: Decay = 0.99


ServerOptimizer = Annotated[FedAvg | FedAdagrad | FedAdam | FedYogi, Field(discriminator="name")]
