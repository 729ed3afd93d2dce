"""Which versions of the model are in use: gto's stages over the model store.

A promotion is a commit of its own beside the rounds: the round's files, its bundle (`bundle.zip.dvc`), what was measured
(`metrics.json`) and the signed decision (`promotion.json`). gto's tags point at it; a data scientist needs no tool of ours::

    gto show                                          # in the model store
    dvc get models bundle.zip --rev model@v1.1.0
    dvc artifacts get models model --stage production
    dvc metrics diff model@v1.1.0 model@v2.1.0

A version vN.0.0 passed the policy, vN.1.0 is the same model when somebody said yes. A tag is never moved: what was in a
stage, and when, stays readable.
"""

from __future__ import annotations

import json
import logging.config
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedround.errors import ContractError, NotFoundError
from fedround.promotion import Stage
from infra import git_history
from infra.model_registry import BUNDLE, ModelRegistry

if TYPE_CHECKING:
    from gto.base import BaseObject

ARTIFACT, PROMOTION = "model", "promotion.json"
_NAME, _ADDRESS = "fedround", "fedround@localhost"


@dataclass(frozen=True)
class Assigned:
    """A version that was put into a stage, once."""

    stage: str
    version: str
    commit: str
    number: int
    """The numbers ascend over all stages."""
    when: str


class Stages:
    """The stages of one model store."""

    def __init__(self, registry: ModelRegistry):
        self._registry, self._root = registry, str(registry.root)

    def history(self) -> list[Assigned]:
        """Every assignment, the oldest first."""
        _load_gto()
        from gto.registry import GitRegistry

        with GitRegistry.from_url(self._root) as gto:
            artifacts = gto.get_state().artifacts
            versions = artifacts[ARTIFACT].versions if ARTIFACT in artifacts else []
            found = [(version, event) for version in versions for event in version.get_events()]
        return sorted((_assigned(version, event) for version, event in found if hasattr(event, "stage")),
                      key=lambda one: one.number)

    def current(self, stage: Stage) -> Assigned | None:
        """What is in a stage now."""
        return next((one for one in reversed(self.history()) if one.stage == stage), None)

    def add(self, tag: str, version: str, bundle: bytes, promotion: bytes, metrics: Mapping[str, float]) -> str:
        """Keep a promotion beside the round `tag` as `version`, durably. A version that is there stays as it is."""
        known = git_history.tags(self._registry.root)
        if f"{ARTIFACT}@{version}" in known:
            return version
        if tag not in known:
            raise NotFoundError(f"the model store has no version '{tag}': 'fedround models rebuild' makes it again from what "
                                "is committed")
        pointer = self._registry.keep_bundle(bundle)
        commit = git_history.commit_beside(self._registry.root, tag, {
            f"{BUNDLE}.dvc": pointer, PROMOTION: promotion, "metrics.json": _readable(metrics)}, f"{version}: {tag}\n")
        _load_gto()
        import gto.api

        gto.api.register(self._root, ARTIFACT, commit, version=version, message=f"{version} is {tag}", author=_NAME,
                         author_email=_ADDRESS)
        return version

    def assign(self, version: str, stage: Stage, message: str) -> None:
        """Put a version into a stage. gto tells assignments apart by the second, so one waits for the next."""
        _load_gto()
        import gto.api

        last = max((one.when for one in self.history()), default="")
        while _second() <= last:
            time.sleep(0.02)
        # force: gto would refuse a version that ever was in the stage, as after a rollback
        gto.api.assign(self._root, ARTIFACT, stage, version=version, message=message, force=True, author=_NAME,
                       author_email=_ADDRESS)

    def next_version(self) -> int:
        """The number of the next model that is promoted."""
        tags = [tag for tag in git_history.tags(self._registry.root) if tag.startswith(f"{ARTIFACT}@v")]
        return 1 + max((int(tag.removeprefix(f"{ARTIFACT}@v").partition(".")[0]) for tag in tags), default=0)

    def before(self, stage: Stage) -> Assigned:
        """The version that a rollback puts back: the one that was promoted to the stage before the present one.

        Raises ContractError if there is none.
        """
        now, history = self.current(stage), self.history()
        if now is None:
            raise ContractError(f"nothing is in {stage}: 'fedround models stages' shows what is")
        earlier = [one for one in history if one.stage == stage and _order(one.version) < _order(now.version)]
        if not earlier:
            raise ContractError(f"{now.version} is the first model that was ever in {stage}: there is nothing to go back to")
        return max(earlier, key=lambda one: _order(one.version))

    def bundle(self, version: str) -> bytes:
        """The bundle of a version. Raises NotFoundError."""
        return self._registry.read_bundle(f"{ARTIFACT}@{version}")

    def promotion(self, version: str) -> bytes:
        """The signed decision. Raises NotFoundError."""
        files = git_history.read(self._registry.root, f"{ARTIFACT}@{version}")
        if files is None or PROMOTION not in files:
            raise NotFoundError(f"the model store has no version '{version}': 'fedround models stages' shows them")
        return files[PROMOTION]


def _assigned(version: Any, event: BaseObject) -> Assigned:
    return Assigned(stage=event.stage, version=version.version, commit=version.commit_hexsha,  # type: ignore[attr-defined]
                    number=int(event.tag.rpartition("#")[2]),  # type: ignore[attr-defined]
                    when=event.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _second() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))


def _readable(metrics: Mapping[str, float]) -> bytes:
    return (json.dumps(dict(metrics), indent=2, sort_keys=True) + "\n").encode()


def _load_gto() -> None:
    """Import gto, but let it configure no logging: it would close every handler of this process, and print to standard output
    what others wrote.
    """
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        import gto.log  # noqa: F401
    finally:
        logging.config.dictConfig = configure
