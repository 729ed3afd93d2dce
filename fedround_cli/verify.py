"""fedround verify."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.errors import ContractError, LostError, SetupError, TrustError
from fedround.files import sha256_of
from fedround.spoken import how_many
from fedround_cli.folders import DEFAULT_COORDINATOR, AnyFolder
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.terminal import boxed

if TYPE_CHECKING:
    from fedround.federation_log import Logged
    from infra.stores import ObjectStore
    from tasks.contribution import Public
    from tasks.proofs import FindingProof, RoundProof


@command
def verify(
    run: Annotated[str | None, typer.Argument(help="The run whose history to prove.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(
        help="A model file: find the round that made it, and prove its lineage back to round 0.")] = None,
    rows: Annotated[Path | None, typer.Option(
        help="A file of 'fedround synth', with its card beside it: prove the card, the run up to the question that the rows "
        "were drawn from, its price, and that the seed draws these rows.")] = None,
    folder: AnyFolder = DEFAULT_COORDINATOR,
    recompute: Annotated[bool, typer.Option(
        "--recompute", help="Compute every model again from the sites' stored updates, and compare every byte. Needs an "
        "auditor's or the coordinator's credential, and disk for one round's updates.")] = False,
    public_rows: Annotated[Path | None, typer.Option(
        help="The coordinator's public test set, to compute contributions again, too. Its own folder names it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove a run's history from the object store alone: every signature and hash, the federation log, who was shown what.

    The results of the run's evaluations and measurements are proven too: all sites together said so.
    With --recompute it is also proven that nobody tampered between the updates and the model: the aggregate and the server's
    step of every round are computed again. Without it, the coordinator's signature vouches for these computations. What is
    said of the sites' contributions is computed again where the public rows are; that runs the recipe of the folder.
    In the coordinator's folder, the run's pages and their index then say what was found: a note that nobody signs.
    Exit code 0: every model, or the one of --checkpoint, is proven back to round 0. Exit code 1: the first thing that does
    not hold; or, after all that holds, the answers that members altered or took away since.
    """
    from fedround_cli.membership import store_and_key
    from fedround_cli.verify_rows import verify_rows
    from tasks.recompute import Bench
    from tasks.verify import find_model, read_log, verify_run

    store, key = store_and_key(folder)
    if rows is not None:
        if run is not None or checkpoint is not None or recompute:
            raise ContractError("--rows goes alone: the card names the run and its question")
        verify_rows(store, key, rows, as_json=as_json)
        return
    sha256, until = None, None
    if checkpoint is not None:
        sha256 = _digest_of(checkpoint)
        found, until = find_model(store, sha256, key)
        if run not in (None, found):
            raise ContractError(f"{checkpoint} was made in round {until} of run '{found}', not in run '{run}'")
        run = found
    if run is None:
        raise ContractError("name the run whose history to prove, a model file with --checkpoint, or synthetic rows with "
                            "--rows")
    with TemporaryDirectory(prefix="fedround-verify-") as bench:
        proofs, problem = _all(verify_run(store, run, key, until, Bench(Path(bench), store) if recompute else None,
                                       _public(store, run, folder, public_rows) if recompute else None))
    _note(folder, run, proofs, problem)
    if problem is not None and not isinstance(problem, LostError):
        raise problem
    log = read_log(store, key)
    if as_json:
        print_json({
            "run": run, "coordinator": key, "model": proofs[-1].model, "rounds": [_as_json(proof) for proof in proofs],
            "log": [{"digest": logged.digest, **logged.entry.model_dump(mode="json")} for logged in log]})
    else:
        _certificate(run, key, proofs, log, recompute)
    if problem is not None:
        raise LostError(f"{problem}. All the rest is proven. Whoever writes below a member's prefix can do this, and a "
                        "coordinator that named what never was looks the same. The old bytes decide: look for them in an "
                        "older version of the object, or in that site's outbox")


def _public(store: ObjectStore, run: str, folder: Path, rows: Path | None) -> Public | None:
    """Where contributions can be judged again; None: nowhere, or nothing is said of any."""
    from fedround import layout
    from fedround.learning.recipe import load_recipe
    from infra.settings import CoordinatorSettings, SiteSettings, load_toml
    from tasks.contribution import Public
    from validation.encoding import encoded_alone

    if not any(True for _ in store.list(layout.contributions(run))):
        return None
    if (folder / "coordinator.toml").exists():
        settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
        path = folder / settings.recipe
        if rows is None and settings.test_set is not None:
            rows = folder / settings.test_set
    else:
        path = folder / load_toml(SiteSettings, folder / "site.toml").recipe
    if rows is None:
        return None
    recipe = load_recipe(path)
    return Public(recipe, encoded_alone(rows, recipe, path))


def _all(proofs: Iterator[RoundProof]) -> tuple[list[RoundProof], TrustError | None]:
    """Every proof, and what ended them: the first thing that does not hold, or what members altered or took away since."""
    found: list[RoundProof] = []
    try:
        for proof in proofs:
            found.append(proof)
    except TrustError as error:
        return found, error
    return found, None


def _note(folder: Path, run: str, proofs: Sequence[RoundProof], problem: TrustError | None) -> None:
    """Beside the pages of the run, for who reads them: in the coordinator's folder, where they lie."""
    if not (folder / "coordinator.toml").exists():
        return
    from tasks import pages
    from tasks.reporting.verified import Verified

    everything = _everything(proofs)
    note = Verified(
        run=run, at=datetime.now(UTC), commits=tuple(proof.commit for proof in proofs),
        signatures=sum(one.signatures for one in everything), hashes=sum(one.hashes for one in everything),
        recomputed=sum(proof.recomputed for proof in proofs),
        lost=tuple(sorted({site for one in everything for site in one.lost})),
        problem="" if problem is None or isinstance(problem, LostError) else str(problem))
    try:
        pages.note_verified(folder / "reports", note)
    except OSError as error:
        typer.echo(f"what was found stands on no page: {error.strerror}: {error.filename}", err=True)


def _everything(proofs: Sequence[RoundProof]) -> list[RoundProof | FindingProof]:
    """The rounds, and what was asked about them."""
    return [*proofs, *(finding for proof in proofs for finding in proof.findings)]


def _as_json(proof: RoundProof) -> dict[str, Any]:
    privacy = None if proof.privacy is None else proof.privacy.model_dump(mode="json")
    findings = [{**asdict(found), "totals": [total.model_dump(mode="json") for total in found.totals]}
                for found in proof.findings]
    after = None if proof.after is None else proof.after.model_dump(mode="json")
    return {**asdict(proof), "privacy": privacy, "findings": findings, "after": after}


def _digest_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}") from None


def _certificate(run: str, key: str, proofs: Sequence[RoundProof], log: Sequence[Logged], recompute: bool) -> None:
    """What was proven, for people: first the sentence, then each round, then what the reader must know."""
    from rich.table import Table

    from fedround.privacy.profile import upward

    last, asked = proofs[-1], [proof for proof in proofs if proof.round > 0]
    sites = sorted({site for proof in asked for site in proof.updates})
    everything = _everything(proofs)
    gone = sorted({site for proof in everything for site in proof.lost})
    but = f", [bold red]but not what {', '.join(gone)} signed, which was altered or is gone[/]" if gone else ""
    out.print(boxed(
        f"Model [bold]{last.model}[/]\nis the model of round [bold]{last.round}[/] of run [bold]'{run}'[/] of federation "
        f"'{log[-1].federation.name}'.\nEvery step back to round 0 is proven{but}: {sum(p.signatures for p in everything)} "
        f"signatures, {sum(p.hashes for p in everything)} hashes; the federation log to entry {len(log)}.\n"
        f"Trained by {how_many(len(sites), 'site')}: {', '.join(sites) or 'none'}\n"
        f"Rules       {'; '.join(_in_turn(proof.aggregation for proof in asked)) or 'none'}\n"
        f"Privacy     {'; '.join(_in_turn(_privacy(proof) for proof in asked)) or 'none'}\n"
        f"{_chosen(last)}"
        f"Recomputed  {_recomputed(asked, recompute)}\n"
        f"{_contributions(asked)}"
        f"Coordinator {key}", title="certificate of lineage"), highlight=False, soft_wrap=False)
    table = Table("round", "commit", "model", "log", "updates", "not used", "ε spent")
    for proof in proofs:
        spent, alone = ([value for value in said.values() if value is not None] for said in (proof.epsilons, proof.alone))
        others = {"left out": proof.left_out, "not asked": proof.excluded, "refused": proof.refusals,
                  "regions without a sum": tuple(name for name, why in proof.regions.items() if why)}
        table.add_row(str(proof.round), proof.commit[:16], proof.model[:16], str(proof.log), str(len(proof.updates)),
                      "; ".join(f"{what}: {', '.join(names)}" for what, names in others.items() if names),
                      " ".join([*([f"≤ {upward(max(spent), 4)}"] if spent else []),
                                *([f"(alone ≤ {upward(max(alone), 4)})"] if alone else [])]))
    out.print(table)
    _findings(proofs)
    if (begun := proofs[0].after) is not None:
        out.print(f"[yellow]![/] it begins with the model of round {begun.round} of run '{begun.run}', whose commit holds: "
                  "prove that run, too; rows that are in both pay for both")
    for proof in proofs:
        if proof.revoked_since:
            out.print(f"[yellow]![/] round {proof.round}: the key of {', '.join(proof.revoked_since)} was revoked later; ask "
                      "since when somebody else had it")
    if any(proof.memory_unseen for proof in proofs):
        out.print("[yellow]![/] this credential may not read what the coordinator remembers of the sites: the coordinator's "
                  "signature vouches for that; an auditor's credential proves it too")
    if hidden := {site for proof in everything for site in proof.unseen}:
        out.print(f"[yellow]![/] this credential may not read the answers of {', '.join(sorted(hidden))}: for those the "
                  "coordinator's signature vouches, and the sites' own for the plan; an auditor's credential proves them too")


def _findings(proofs: Sequence[RoundProof]) -> None:
    """The questions besides training, and whether their totals were added up again."""
    from rich.table import Table

    if not any(proof.findings for proof in proofs):
        return
    table = Table("round", "asked", "counted", "answers", "refused", "totals")
    for proof in proofs:
        for found in proof.findings:
            counted = "; ".join(f"{total.statistic.in_words} ({', '.join(axis.name for axis in total.statistic.axes)})"
                                for total in found.totals)
            vouched = "the coordinator's word: not every answer may be read" if found.unseen else "as the sites said"
            table.add_row(str(proof.round), found.asked, counted, str(len(found.answers)), ", ".join(found.refusals), vouched)
    out.print(table)


def _recomputed(asked: Sequence[RoundProof], wanted: bool) -> str:
    if not wanted:
        return "no: the coordinator's signature vouches that the models follow from the updates; prove it (--recompute)"
    why = _in_turn(proof.not_recomputed for proof in asked if proof.not_recomputed)
    done = sum(proof.recomputed for proof in asked)
    return (f"{done} of {how_many(len(asked), 'round')} from the sites' updates, byte for byte: aggregate, server's step, "
            "every verdict" + (f"; not the others: {'; '.join(why)}" if why else ""))


def _contributions(asked: Sequence[RoundProof]) -> str:
    """A line, if anything is said of any round."""
    told = [proof.contribution for proof in asked if proof.contribution]
    if not told:
        return ""
    again = sum(one == "recomputed" for one in told)
    why = _in_turn(one.partition(": ")[2] for one in told if ": " in one)
    return (f"Contributed {len(told)} of {how_many(len(asked), 'round')} say what each site added; {again} recomputed"
            + (f"; not the others: {'; '.join(why)}" if why else "") + "\n")


def _chosen(proof: RoundProof) -> str:
    """A line, if anything was chosen for the run."""
    return f"Chosen      {proof.chosen}, when the run began, of what all had agreed on\n" if proof.chosen else ""


def _privacy(proof: RoundProof) -> str:
    privacy = proof.privacy
    if privacy is None or privacy.unit == "none":
        return "none"
    only = f", of the rows of {proof.partition} alone" if proof.partition else ""
    over = how_many(privacy.rounds, "round")
    return f"{privacy.unit} level, ε ≤ {privacy.epsilon:g} at δ {privacy.delta_dp:g} over {over}{only}"


def _in_turn(words: Iterable[object]) -> list[str]:
    """Each once, in the order in which they came."""
    return list(dict.fromkeys(str(word) for word in words))
