"""Whether a site's recipe runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fedround import sandbox
from fedround.errors import SetupError
from fedround.learning.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from infra.settings import SiteSettings
    from site_workers.policy import Limits

_HERE = [False]


def run_here() -> None:
    """From now on recipes run in this process, unless site.toml says "strict": for many sites of one owner in one family of
    processes (demonstrations, tests), which share what they import.
    """
    _HERE[0] = True


def opened(file: Path, digest: str, settings: SiteSettings, limits: Limits) -> Recipe:
    """The recipe in `file`, which is of this digest; its code runs where site.toml says.

    Raises ContractError as `load_recipe` does, and SetupError if site.toml asks for a sandbox and this system has none.
    """
    lacks = sandbox.lacking()
    if settings.sandbox == "strict" and lacks is not None:
        raise SetupError(f'site.toml says sandbox = "strict", and this system has none: {lacks}')
    if settings.sandbox == "off" or lacks is not None or (_HERE[0] and settings.sandbox == "auto"):
        return load_recipe(file, digest)
    from site_workers.apart.host import Host

    return Host(file, digest, limits, settings.device).recipe()


@contextmanager
def watched(recipe: Recipe, watch: Callable[[], bool]) -> Iterator[None]:
    """While this lasts, the recipe's code is stopped, wherever it is, when `watch` says so; if it runs in a process of its
    own.
    """
    from site_workers.apart.host import Host

    if not isinstance(recipe.apart, Host):
        yield
        return
    with recipe.apart.watched(watch):
        yield


def rest(recipe: Recipe) -> None:
    """Nothing more will be asked of it: its process, if it has one, ends."""
    from site_workers.apart.host import Host

    if isinstance(recipe.apart, Host):
        recipe.apart.rest()


def in_words(recipe: Recipe) -> str:
    """Where its code runs, for the operator."""
    if recipe.trees is not None:
        return "has no code but what encodes rows"
    return "runs in a sandbox" if recipe.apart is not None else "runs in the site's own process"
