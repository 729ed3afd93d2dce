"""What is left of a federation's accuracy under every attack, for every rule, through the engine that rounds use.

    python -m benchmarks.breakdown                      # all tables: a quarter of an hour of CPU time
    python -m benchmarks.breakdown --quick              # one seed, one table, nine rules: half a minute
    python -m benchmarks.breakdown --rules mean,krum --attacks none,min_max

scikit-learn's digits, 12 sites, Dirichlet 0.5, a perceptron with 2,410 parameters, 25 rounds of 5 local steps. A site
clips its update to norm 1 and adds Gaussian noise of standard deviation z to every coordinate; that is the noise law it
declares. A number is the mean test accuracy of the last three rounds, in percent, over three seeds. Writes
breakdown.md, breakdown.json and one picture (breakdown-….svg) for each table into --out.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")      # matrices of 12 rows: more threads only spin

import numpy as np
from rich.progress import track

from benchmarks.adaptive import ADAPTIVE
from benchmarks.attacked import CLIP_NORM, SITES, Setting, simulate
from benchmarks.attacks import ATTACKS, Attack, Floats
from benchmarks.contenders import CONTENDERS, DEFAULT
from benchmarks.digits import COORDINATES
from benchmarks.tables import Table, heat_map, markdown

SEEDS = (0, 1, 2)
FEW_RULES = (DEFAULT, "gate+nnm by distance+trimmed", "gate+spectral", "gate+mean", "spectral", "nnm+trimmed", "geometric",
             "median", "mean")
FEWEST_RULES = (DEFAULT, "spectral", "mean")
TABLES = {Setting(3, 0.1, 0.5): tuple(CONTENDERS), Setting(3, 0.1, 0.0): tuple(CONTENDERS),
          Setting(3, 0.0, 0.0): FEWEST_RULES, Setting(3, 0.1, 0.9): FEWEST_RULES,
          Setting(4, 0.1, 0.5): FEWEST_RULES, Setting(4, 0.1, 0.0): FEWEST_RULES, Setting(4, 0.1, 0.9): FEWEST_RULES}
"""Which rules stand in which table. The first setting is that of a short run whose federation names no rule."""
AGAINST = {Setting(3, 0.1, 0.5): (*FEW_RULES, "smea", "arc+nnm+trimmed", "fltrust"), Setting(3, 0.1, 0.0): FEW_RULES}
"""Where only some of a table's rules meet the attacks that know the defence, which cost four times as much as all others."""
ALL_ATTACKS: dict[str, Attack] = ATTACKS | ADAPTIVE


def main() -> None:
    """Simulate, then write tables and pictures."""
    options = _options()
    todo = [(rule, _attacks(options.attacks, rule, setting), setting, options.seeds)
            for setting, rules in options.tables.items() for rule in rules]
    with ProcessPoolExecutor(options.processes) as pool:
        rows = list(track(pool.map(row, *zip(*todo, strict=True)), "rows of tables", total=len(todo), transient=True))
    cells: dict[Setting, dict[str, dict[str, Floats]]] = {setting: {} for setting in options.tables}
    for (rule, _, setting, _), found in zip(todo, rows, strict=True):
        cells[setting][rule] = found
    known, adaptive = (tuple(name for name in options.attacks if name in part) for part in (ATTACKS, ADAPTIVE))
    tables = [Table(str(setting), known, adaptive, found) for setting, found in cells.items()]
    write(tables, tuple(options.tables), options.out)
    print(json.dumps(plain(tables)) if options.json else text(tables))


def _attacks(asked: Sequence[str], rule: str, setting: Setting) -> tuple[str, ...]:
    return tuple(name for name in asked if name in ATTACKS or rule in AGAINST.get(setting, (rule,)))


def row(rule: str, attacks: Sequence[str], setting: Setting, seeds: Sequence[int]) -> dict[str, Floats]:
    """Accuracy in percent under each attack, of each seed, (S,)."""
    honest_norm = CLIP_NORM if setting.law is None else float(np.hypot(CLIP_NORM, setting.law.std * COORDINATES**0.5))
    how = CONTENDERS[rule](setting.liars, SITES, honest_norm)
    accuracies_AS = simulate(how, {name: ALL_ATTACKS[name] for name in attacks}, setting, seeds)
    return {name: 100 * found_S for name, found_S in zip(attacks, accuracies_AS, strict=True)}


def write(tables: Sequence[Table], settings: Sequence[Setting], folder: Path) -> None:
    """breakdown.md, breakdown.json, and a picture for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "breakdown.md").write_text(text(tables))
    (folder / "breakdown.json").write_text(json.dumps(plain(tables), indent=1) + "\n")
    for table, setting in zip(tables, settings, strict=True):
        heat_map(table, folder / f"breakdown-f{setting.liars}-z{setting.noise:g}-b{setting.history:g}.svg")


def text(tables: Sequence[Table]) -> str:
    """All tables, as Markdown."""
    return "\n\n".join(markdown(table) for table in tables) + "\n"


def plain(tables: Sequence[Table]) -> dict[str, object]:
    """[setting][rule][attack], percent, of each seed."""
    return {table.title: {rule: {attack: np.round(found_S, 2).tolist() for attack, found_S in cells.items()}
                          for rule, cells in table.cells.items()} for table in tables}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, one table, nine rules")
    parser.add_argument("--rules", type=_names(CONTENDERS), help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--attacks", type=_names(ALL_ATTACKS), help=f"of {', '.join(ALL_ATTACKS)}")
    parser.add_argument("--processes", type=int, help="at a time; as many as there are processors unless said otherwise")
    parser.add_argument("--out", type=Path, default=Path("build/breakdown"), help="folder for tables and pictures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    options = parser.parse_args()
    options.attacks = options.attacks or tuple(ALL_ATTACKS)
    options.seeds = SEEDS[:1] if options.quick else SEEDS
    chosen = {setting: options.rules or (FEW_RULES if options.quick else rules) for setting, rules in TABLES.items()}
    options.tables = dict(list(chosen.items())[:1]) if options.quick else chosen
    return options


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(given: str) -> tuple[str, ...]:
        names = tuple(given.split(","))
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"nothing is called {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    main()
