"""What a curious coordinator learns from one site's updates, and anybody from a released model; fills docs/privacy-audit.md.

    python -m benchmarks.privacy_audit          # about ten CPU minutes; remembers results in build/privacy-audit.json
    python -m benchmarks.privacy_audit canaries # one table only

Membership inference, gradient inversion, a one-run audit with canaries, and of the released model attribute inference and
model inversion, at epsilon 1, 5, 10 and without privacy. The site trains with the product's code. Everything is seeded; what
an attack could not know is said where it is used.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.attribute import Known, attribute, inversion
from benchmarks.audited_site import DELTA_DP, Audited
from benchmarks.canaries import CONFIDENCE, audit_run
from benchmarks.inversion import Reconstruction, invert_update, knowing_nothing, picture_recipe, some_pictures
from benchmarks.membership import Leak, attack
from benchmarks.one_run_audit import Audit
from benchmarks.pages import Memory, fill, table
from fedround.learning.examples import Examples
from fedround.learning.spec import LocalTraining
from fedround.privacy.spec import DpSgd
from fedround_examples.banks.split import STORY

EPSILONS = (1.0, 5.0, 10.0, None)           # None: neither clipped nor noised
MEMBER_ROWS, MEMBER_RUNS = 200, 32
MEMBER_TRAINING = LocalTraining(local_steps=20, batch_size=MEMBER_ROWS, learning_rate=2.0)
MEMBER_ROUNDS = 10
CANARIES, SHARES = 4_000, (1.0, 0.1)
AUDITED = (1.0, 2.0, 5.0, 10.0, None)
BROKEN = ((1.0, 3.0), (2.0, 3.0), (5.0, 3.0), (5.0, 2.0))   # (epsilon, how many times too little noise): found out here
PICTURES, RESTARTS = 4, 3
RELEASED_ROWS, RELEASED_RUNS = 60, 24
LIMIT = 38                                  # the place of the credit limit among the banks' features
BY_HEART = 120                              # steps a round of a model that is deliberately weak
RELEASED = ((1.0, 20), (5.0, 20), (10.0, 20), (None, 20), (None, BY_HEART))     # (epsilon, steps a round)
SEED = 0
DOCS = Path("docs")
PARTS = ("membership", "canaries", "pictures", "released")

Audits = dict[tuple[float | None, float, float], Audit]
"""By (epsilon, share of the rows in a batch, how many times too little noise)."""


def main() -> None:
    """Attack, then write tables and pictures."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Attacks on one site's updates.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parts = parser.parse_args().parts or PARTS
    memory, page = Memory(Path("build/privacy-audit.json")), DOCS / "privacy-audit.md"
    tables = {}
    if "membership" in parts:
        leaks = {epsilon: membership(memory, epsilon) for epsilon in EPSILONS}
        tables["membership"] = membership_table(leaks)
        draw_advantage(leaks, DOCS / "privacy-audit-advantage.svg")
    if "canaries" in parts:
        tables["canaries"] = canary_table(canaries(memory))
    if "pictures" in parts:
        found = {epsilon: pictures(memory, epsilon) for epsilon in EPSILONS}
        tables["pictures"] = picture_table(found)
        draw_pictures(found, DOCS / "privacy-audit-pictures.png")
    if "released" in parts:
        tables["released"] = released_table({case: released(memory, *case) for case in RELEASED})
    for part, told in tables.items():
        fill(page, part, told)
        print(told, end="\n\n")


# -- the attacks -------------------------------------------------------------------------------------------------------


def members(epsilon: float | None) -> Audited:
    """The banks' recipe at a site with about a hundred clients, trained until it knows them by heart."""
    return Audited(STORY.recipe(), MEMBER_TRAINING, MEMBER_ROUNDS, epsilon)


def membership(memory: Memory, epsilon: float | None) -> dict[str, Leak]:
    def compute() -> dict[str, dict[str, float]]:
        test = STORY.encoded().test
        rows = Examples(test.inputs["x"][:MEMBER_ROWS], test.targets["y"][:MEMBER_ROWS])
        return {name: asdict(one) for name, one in attack(members(epsilon), rows, MEMBER_RUNS, SEED).items()}

    depends_on = [epsilon, MEMBER_ROWS, MEMBER_RUNS, MEMBER_TRAINING.model_dump(), MEMBER_ROUNDS, SEED]
    return {name: Leak(**one) for name, one in memory.recall("membership", depends_on, compute).items()}


def canaries(memory: Memory) -> Audits:
    cases = [(epsilon, share, 1.0) for share in SHARES for epsilon in AUDITED]
    cases += [(epsilon, 1.0, too_little) for epsilon, too_little in BROKEN]
    cases += [(epsilon, 0.1, 3.0) for epsilon in AUDITED if epsilon is not None]

    def recalled(epsilon: float | None, share: float, too_little: float) -> Audit:
        return Audit(**memory.recall("canaries", [epsilon, share, too_little, CANARIES, SEED, 2], lambda: asdict(
            audit_run(epsilon, canaries=CANARIES, share=share, seed=SEED, too_little=too_little))))

    return {case: recalled(*case) for case in cases}


def pictures(memory: Memory, epsilon: float | None) -> Reconstruction:
    def compute() -> dict[str, object]:
        found = invert_update(some_pictures(PICTURES, SEED), epsilon, restarts=RESTARTS, seed=SEED)
        return {"pictures": found.pictures.tolist(), "mse": found.mse}

    found = memory.recall("pictures", [epsilon, PICTURES, RESTARTS, SEED], compute)
    return Reconstruction(np.array(found["pictures"]), found["mse"])


def released(memory: Memory, epsilon: float | None, steps: int) -> dict[str, Known]:
    """Attacks on the last model of a site with about thirty members."""
    def compute() -> dict[str, dict[str, float]]:
        test, pixels = STORY.encoded().test, some_pictures(RELEASED_ROWS, SEED)
        people = Examples(test.inputs["x"][:RELEASED_ROWS], test.targets["y"][:RELEASED_ROWS])
        training = LocalTraining(local_steps=steps, batch_size=RELEASED_ROWS, learning_rate=2.0)
        right_half = np.tile(np.arange(8) >= 4, 8)
        known = attribute(Audited(STORY.recipe(), training, MEMBER_ROUNDS, epsilon), people, LIMIT, RELEASED_RUNS, SEED)
        seen = inversion(Audited(picture_recipe(), training, MEMBER_ROUNDS, epsilon), pixels, right_half, RELEASED_RUNS, SEED)
        return {"attribute inference": asdict(known), "model inversion": asdict(seen)}

    depends_on = [epsilon, steps, RELEASED_ROWS, RELEASED_RUNS, MEMBER_ROUNDS, LIMIT, SEED]
    return {name: Known(**one) for name, one in memory.recall("released", depends_on, compute).items()}


# -- what the mechanism allows at most ---------------------------------------------------------------------------------


def largest_advantage(epsilon: float) -> float:
    """Of any attack on any (epsilon, delta_dp)-private mechanism (Humphries et al. 2023, arXiv:2010.12112)."""
    return (math.expm1(epsilon) + 2 * DELTA_DP) / (math.exp(epsilon) + 1)


def gaussian_advantage(epsilon: float) -> float:
    """Of any attack on the mechanism that was used: the total variation of two Gaussians, since every step uses every row."""
    mechanism = members(epsilon).mechanism(MEMBER_ROWS)
    if not isinstance(mechanism, DpSgd) or mechanism.sampling_rate < 1:
        raise ValueError("the closed form needs DP-SGD that uses every row in every step")
    return math.erf(math.sqrt(MEMBER_ROUNDS * mechanism.steps / 8) / mechanism.noise_multiplier)


# -- tables and pictures -----------------------------------------------------------------------------------------------


def membership_table(leaks: Mapping[float | None, Mapping[str, Leak]]) -> str:
    rows = [[_name(epsilon), name, f"{leak.advantage:.3f}", *_bounds(epsilon), f"{leak.auc:.3f}", f"{leak.tpr_at_1_fpr:.3f}"]
            for epsilon, attacks in leaks.items() for name, leak in attacks.items()]
    return table(["epsilon", "attack", "advantage", "at most, this mechanism", "at most, any mechanism", "AUC",
                  "true positives at 1 % false"], rows)


def canary_table(audits: Audits) -> str:
    rows = []
    for (epsilon, share, too_little), audit in audits.items():
        claimed = audit.gaussian_at_least if share == 1 else audit.sampled_at_least
        found = max(audit.epsilon_at_least, claimed)
        verdict = "" if epsilon is None else "exceeded" if found > epsilon else "holds"
        site = "honest" if too_little == 1 else f"1/{too_little:g} of the noise"
        gaussian = f"{claimed:.2f}" if epsilon is not None else ""
        rows.append([_name(epsilon), site, f"{share:g}", f"{audit.right} of {audit.guesses}", f"{audit.epsilon_at_least:.2f}",
                     gaussian, verdict])
    return table(["claimed epsilon", "site", "share of rows in a step", "guesses right",
                  f"epsilon is at least ({CONFIDENCE:.0%})", "as Gaussian noise with this sampling, at least", "claim"], rows)


def released_table(found: Mapping[tuple[float | None, int], Mapping[str, Known]]) -> str:
    rows = [[_name(epsilon), str(steps), name, f"{one.members:.4f}", f"{one.others:.4f}",
             f"{one.advantage:+.4f} ± {one.error:.4f}", f"{one.power:.4f}", "yes" if one.is_found else "no"]
            for (epsilon, steps), attacks in found.items() for name, one in attacks.items()]
    return table(["epsilon", "steps a round", "attack", "members", "others", "advantage", "found in 95 of 100 if", "found"],
                 rows)


def picture_table(found: Mapping[float | None, Reconstruction]) -> str:
    nothing = knowing_nothing(some_pictures(PICTURES, SEED))
    rows = [[_name(epsilon), f"{one.mse:.4f}", f"{one.psnr_db:.1f}"] for epsilon, one in found.items()]
    return table(["epsilon", "mean squared error", "PSNR in dB"],
                 [*rows, ["the mean digit, whatever the update", f"{nothing.mse:.4f}", f"{nothing.psnr_db:.1f}"]])


def draw_advantage(leaks: Mapping[float | None, Mapping[str, Leak]], path: Path) -> None:
    """Advantage against epsilon, with what privacy allows at most."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    places, private = range(len(leaks)), [epsilon for epsilon in leaks if epsilon is not None]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "audit", "font.family": "sans-serif", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(6, 3.4))
        for attack_name in next(iter(leaks.values())):
            axes.plot(places, [attacks[attack_name].advantage for attacks in leaks.values()], "o-", label=attack_name)
        axes.plot(places[:len(private)], [gaussian_advantage(epsilon) for epsilon in private], "k--",
                  label="at most, this mechanism")
        axes.plot(places[:len(private)], [largest_advantage(epsilon) for epsilon in private], "k:",
                  label="at most, any mechanism")
        axes.set_xticks(places, [_name(epsilon) for epsilon in leaks])
        axes.set_xlabel("epsilon of the whole campaign, delta_dp 1e-5")
        axes.set_ylabel("advantage of membership inference")
        axes.set_ylim(0, 1.02)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def draw_pictures(found: Mapping[float | None, Reconstruction], path: Path) -> None:
    """The originals, and under them what the attack made of the update at every epsilon."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    lines = [("original", some_pictures(PICTURES, SEED).inputs["x"].astype(np.float64))]
    lines += [("no privacy" if epsilon is None else f"epsilon {epsilon:g}", one.pictures)
              for epsilon, one in sorted(found.items(), key=lambda pair: -(pair[0] or math.inf))]
    figure, grid = plt.subplots(len(lines), PICTURES, figsize=(1.1 * PICTURES, 1.1 * len(lines)))
    for (label, images), line in zip(lines, grid, strict=True):
        for image, axes in zip(images, line, strict=True):
            axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, fontsize=8)
    figure.savefig(path, dpi=80, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def _bounds(epsilon: float | None) -> Sequence[str]:
    if epsilon is None:
        return ["1", "1"]
    return [f"{gaussian_advantage(epsilon):.3f}", f"{largest_advantage(epsilon):.3f}"]


def _name(epsilon: float | None) -> str:
    return "none" if epsilon is None else f"{epsilon:g}"


if __name__ == "__main__":
    main()
