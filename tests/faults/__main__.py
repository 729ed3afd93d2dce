"""`python -m tests.faults [--kind KIND…] [--scenes K] [--sample N] [--seed S] [NAME…]`: kill members at every change to the
disk, let rounds run over bad links, and disturb the processes of a live federation.

Prints a table: what was done, in how many places it can happen, how many were tried, and how often all ended as if nothing
had happened. The exit status is 1 if it did not.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.tried import Tried

if TYPE_CHECKING:
    from tests.faults.scenes import Scene, Seen

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")     # this process forks


KINDS = ("killed", "links", "processes")


def main(arguments: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="of scenes; all, if none is given")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these; all, if none is given")
    parser.add_argument("--scenes", type=int, help="so many scenes, by chance; without it: all")
    parser.add_argument("--sample", type=int, help="so many changes of each scene, by chance; without it: all")
    parser.add_argument("--seed", type=int, default=random.randrange(10 ** 6), help="of the chance")
    said = parser.parse_args(arguments)
    import great_expectations  # noqa: F401  # so that sites judge their rows in their own process
    import torch

    from fedround import locked
    from site_workers.apart.opening import run_here
    from tests.faults import at_coordinators, at_sites

    scenes = (*at_sites.SCENES, *at_coordinators.SCENES)
    torch.set_num_threads(1)
    run_here()                              # a child for recipes would import torch once for each kill
    locked._key = functools.lru_cache(maxsize=None)(locked._key)        # a third of a second, once for all that are forked
    if unknown := set(said.names) - {scene.name for scene in scenes}:
        parser.error(f"no scene is called '{unknown.pop()}'; there are: {', '.join(scene.name for scene in scenes)}")
    kinds = said.kind or (KINDS if not said.names and said.scenes is None else ("killed",))
    print(f"{'fault':52}{'places':>9}{'tried':>7}{'survived':>10}", flush=True)
    failed = False
    if "killed" in kinds:
        chosen = [scene for scene in scenes if not said.names or scene.name in said.names]
        if said.scenes is not None:
            chosen = random.Random(said.seed).sample(chosen, min(said.scenes, len(chosen)))
        for scene in chosen:
            failed |= shown("killed", try_scene(scene, said.sample, random.Random(said.seed)))
    if "links" in kinds:
        from tests.faults.over_links import tried_links

        for tried in tried_links(said.seed):
            failed |= shown("link", tried)
    if "processes" in kinds:
        from tests.faults.processes import tried_campaigns

        for tried in tried_campaigns(said.seed):
            failed |= shown("process", tried)
    print(f"seed {said.seed}")
    return int(failed)


def shown(kind: str, tried: Tried) -> bool:
    """Print a row; whether it went wrong."""
    numbers = f"{tried.places:9}{tried.tried:7}{tried.tried - len(tried.wrong):10}"
    print(f"{kind}: {tried.name:{50 - len(kind)}}{numbers}", flush=True)
    for line in tried.wrong:
        print(f"    {line}", flush=True)
    return tried.wrong != ()


def try_scene(scene: Scene, sample: int | None, chance: random.Random) -> Tried:
    """Kill it at every change, or at some, and do it again."""
    from tests.faults import crash

    with tempfile.TemporaryDirectory(prefix="fedround-faults-") as folder:
        before, root = Path(folder) / "before", Path(folder) / "root"
        if not crash.done(lambda: scene.begin(root)):
            raise SystemExit(f"'{scene.name}': what is there before cannot be made")
        shutil.copytree(root, before, symlinks=True)
        places = crash.places(root, lambda: scene.act(root))
        wanted = scene.seen(root)
        numbers = range(len(places)) if sample is None or sample >= len(places) else sorted(
            chance.sample(range(len(places)), sample))
        wrong = []
        for number in numbers:
            shutil.rmtree(root)
            shutil.copytree(before, root, symlinks=True)
            crash.killed_at(number, root, lambda: scene.act(root))
            if not crash.done(lambda: scene.act(root)):
                wrong.append(f"before change {number}, {places[number]}: done again, it fails (above)")
            elif (what := different(wanted, scene.seen(root))):
                wrong.append(f"before change {number}, {places[number]}: not as if nothing had been: {what}")
        return Tried(scene.name, len(places), len(numbers), tuple(wrong))


def different(wanted: Seen, seen: Seen) -> str:
    """What differs, by name."""
    names = sorted(name for name in wanted.keys() | seen.keys() if wanted.get(name) != seen.get(name))
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
