"""fedround demo: the members of an example train one model on this machine, with every real part."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.spoken import how_many, typed
from fedround_cli.folders import DEFAULT_HOME, Home
from fedround_cli.output import command, out

if TYPE_CHECKING:
    from fedround_examples.rivals import Baselines
    from fedround_examples.story import Story
    from flows.one_machine import OneMachine
    from tasks.coordinator import Coordinator
    from tasks.reporting.record import Beside

RUN = "demo"
FULL_ROUNDS = 20


class Example(StrEnum):
    """An example that the demonstration can run: a folder of fedround_examples/."""

    BANKS_TREES = "banks_trees"
    BANKS = "banks"
    CARLOAN = "carloan"
    INSURANCE = "insurance"


@command
def demo(
    home: Home = DEFAULT_HOME / "demo",
    example: Annotated[Example, typer.Option(help="Whose story: twelve banks and credit cards, with trees or with a neural "
                                                  "network (banks); twelve segments of a (synthetic) car-loan market, which "
                                                  "takes longer; or six sites of a health insurance experiment, and what "
                                                  "care costs.")] = Example.BANKS_TREES,
    rounds: Annotated[int, typer.Option("--rounds", "-n", min=1, max=200, help="Rounds of the campaign.")] = 10,
    epsilon: Annotated[float, typer.Option(min=0.1, max=100, help="Each bank's privacy budget for the campaign.")] = 5.0,
    liar: Annotated[str | None, typer.Option(metavar="BANK", help="Let this bank lie: in every round it pushes the model in "
                                                                  "one direction, far beyond what it learnt.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers, the sites and the UI running.")] = False,
) -> None:
    """Twelve banks train one model; no record moves, and every bank keeps its own privacy ledger.

    Starts PostgreSQL, a Prefect server, an S3 server, a coordinator process and twelve site processes on this machine.
    Trains, compares with pooled training and with each bank alone. Then it shows how the model decides about groups of
    clients, holds it against a policy, and scores a file with it. Stops what it started, also when it is killed. If it was
    stopped half way, it continues there. If it has finished, it begins anew.
    """
    from flows.one_machine import OneMachine
    from infra.watcher import watched

    machine = OneMachine(home)
    with watched(machine.home) as live_on:
        try:
            began = time.monotonic()
            coordinator = _ready(machine, example, rounds, epsilon, liar)
            with _rivals(home, example, rounds, liar) as rivals:
                _train(coordinator, rounds)
                _show_result(machine, coordinator, rivals, rounds, liar)
        except SystemExit:              # terminated
            keep = False
            raise
        finally:
            if keep:
                live_on()
                out.say("left running; stop it with [bold]fedround down --home {}[/]", typed(home))
            else:
                with out.status("stopping what was started …"):
                    machine.stop()
                out.print(f"everything is stopped; {time.monotonic() - began:.0f} s in all")


def _ready(machine: OneMachine, example: Example, rounds: int, epsilon: float, liar: str | None) -> Coordinator:
    """Servers, folders, processes. What an interrupted demonstration left behind is used; a finished one is cleared."""
    from fedround.errors import SetupError
    from fedround_examples.live import set_up

    story: Story = import_module(f"fedround_examples.{example}.split").STORY
    asked = machine.home / "demo.json"
    names = [bank.name for bank in story.split().banks]
    if liar is not None and liar not in names:
        raise SetupError(f"there is no bank '{liar}' in this example: {', '.join(names)}")
    wanted = {"example": example, "rounds": rounds, "epsilon": epsilon, "liar": liar}
    if not machine.exists or (machine.home / "finished").exists() or _read(asked) != wanted:
        _clear(machine)
    elif machine.exists:
        out.print("going on with the demonstration that was stopped")
    with out.status("starting PostgreSQL, Prefect and S3 …") as status:
        info = machine.start_servers(status.update)
        out.print(f"[green]✓[/] servers    PostgreSQL, S3 and Prefect: UI at {info.ui_url}")
        if not machine.exists:
            status.update("giving every bank its folder, keys, policy and ledger …")
            set_up(story, machine, machine.home / "data", rounds, epsilon)
            asked.write_text(json.dumps(wanted))
        banks = len(list((machine.home / "sites").iterdir()))
        out.print(f"[green]✓[/] federation {banks} banks, ε ≤ {epsilon:g} at δ = 1e-5 for {how_many(rounds, 'round')}, "
                  "record level")
        status.update("starting the coordinator's and the sites' processes …")
        coordinator = machine.start_processes(status.update, {} if liar is None else {liar: "fedround_examples.liar"})
        out.print(f"[green]✓[/] processes  1 coordinator, {banks} sites, each in its own work pool")
        if liar is not None:
            out.print(f"[red]![/] {liar} lies: on top of its update comes a push of length 20, the same in every round")
    return coordinator


def _read(asked: Path) -> object:
    """What was asked for when it was stopped; None if that cannot be read: then the demonstration begins anew."""
    try:
        return json.loads(asked.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def _clear(machine: OneMachine) -> None:
    if machine.home.exists():
        machine.stop()
        shutil.rmtree(machine.home)
    machine.home.mkdir(parents=True)


@contextmanager
def _rivals(home: Path, example: Example, rounds: int, liar: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """Pooled training, the federation without noise, and each bank alone; computed meanwhile, at low priority.

    With a liar, also the federation without it, and the federation with it under a plain mean.
    """
    also = [] if liar is None else ["--liar", liar, "--rounds", str(rounds)]
    process = subprocess.Popen(
        ["nice", "-n", "15", sys.executable, "-m", f"fedround_examples.{example}.baselines", "--json", *also],
        stdout=(home / "baselines.json").open("wb"), stderr=(home / "logs" / "baselines.log").open("wb"))
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _train(coordinator: Coordinator, rounds: int) -> None:
    import asyncio

    from fedround_cli.campaign import show_campaign

    asyncio.run(show_campaign(coordinator, "federated-training", {"run": RUN, "rounds": rounds}))


def _show_liar(coordinator: Coordinator, liar: str, metric: str, reached: float, rivals: Baselines | None) -> None:
    """In which rounds the liar was left out, and why; and what the federation is with it and without it."""
    from tasks.report import records

    if rivals is not None:
        out.print(f"[bold]{with_and_without(liar, reached, rivals, metric)}[/]")
    seen = [row for record in records(coordinator, RUN) for row in record.sites if row.site == liar]
    caught = [row for row in seen if row.outcome == "left_out"]
    if caught:
        out.print(f"[red]{liar} was left out in {len(caught)} of {how_many(len(seen), 'round')}[/]: {caught[-1].note}")
    else:
        out.print(f"[red]{liar} was never left out[/]: see the report for what became of its updates")


def with_and_without(liar: str, reached: float, rivals: Baselines, metric: str = "auc") -> str:
    """How good the federation is in which a bank lied, beside what simulations of the others say. One sentence."""
    from tasks.reporting.words import label

    others = "; ".join(f"{case.what}, simulated, {case.test.known()[metric]:.3f}" for case in rivals.lied_to)
    return f"{label(metric)} with {liar} lying {reached:.3f}; {others}"


def _show_result(machine: OneMachine, coordinator: Coordinator, rivals: subprocess.Popen[bytes], rounds: int,
                 liar: str | None) -> None:
    from rich.table import Table

    from fedround.learning.trees.spec import Trees
    from fedround_cli.demo_use import put_to_use, show_drift
    from fedround_examples.rivals import Baselines
    from tasks.report import page, record_beside, records
    from tasks.reporting.words import label, spent

    last, banks = records(coordinator, RUN)[-1], coordinator.federation.sites
    reached = {} if last.public is None else last.public.known()
    with out.status("comparing with pooled training and with each bank alone …"):
        failed = rivals.wait() != 0
    names = list(reached)[:2]
    table = Table("trained on", *map(label, names), "privacy",
                  title=f"on {_tested(machine):,} clients whom nobody trained on")
    table.add_row(f"the federation, {how_many(rounds, 'round')}", *(f"{reached[name]:.3f}" for name in names),
                  f"ε = {spent(last.largest_epsilon)}, δ = 1e-5", style="bold")
    compared = None if failed else Baselines.model_validate_json((machine.home / "baselines.json").read_bytes())
    if compared is not None:
        others = beside(compared)
        for other in others:
            found = other.test.known()
            table.add_row(other.what, *(f"{found[name]:.3f}" for name in names), other.privacy)
        record_beside(coordinator, RUN, last.round, others)
    out.print(table)
    if compared is None:
        out.say("the comparison failed; see {}", machine.home / "logs" / "baselines.log")
    else:
        beaten = sum(reached[names[0]] > bank.test.known()[names[0]] for bank in compared.alone)
        out.print(f"[bold]better than the own model of {beaten} of {len(banks)} banks[/], which keep no privacy when they "
                  "train alone")
    if liar is not None:
        _show_liar(coordinator, liar, names[0], reached[names[0]], compared)
    if rounds < FULL_ROUNDS and not isinstance(coordinator.federation.training, Trees):
        out.print(f"this is a short campaign: {FULL_ROUNDS} rounds do a little better, for the same epsilon")
    show_drift(machine, coordinator, RUN)
    put_to_use(machine, coordinator, RUN, last.round)
    out.say("report       {}\nmodels       fedround models list -c {}\nproof        fedround verify {} --as {}   (needs the "
            "S3 server: fedround up --home {})\na ledger     fedround site ledger {}\n"
            "try next     fedround demo --rounds 20 --keep, then start a round from the UI's form",
            page(coordinator, RUN, last.round), typed(machine.coordinator), RUN, typed(machine.coordinator),
            typed(machine.home), typed(machine.site(banks[0].name)))
    (machine.home / "finished").touch()


def _tested(machine: OneMachine) -> int:
    from pyarrow.parquet import ParquetFile

    return int(ParquetFile(machine.home / "data" / "public_test.parquet").metadata.num_rows)


def beside(rivals: Baselines) -> list[Beside]:
    """Everything that the federation is compared with, as a report has it."""
    from tasks.reporting.record import Beside

    return [Beside(what=name, test=reached, privacy="the same" if name.endswith("private") else "none")
            for name, reached in rivals.lines()]
