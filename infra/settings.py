"""Configuration, read once at the edge into frozen values.

A site's folder and the coordinator's folder each hold one TOML file, and beside it the keys (mode 0600) that never
stand in it. Relative paths are relative to the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tomlkit
from pydantic import Field

from fedround.errors import SetupError
from fedround.files import write_whole
from fedround.learning.device import DeviceName
from fedround.values import Name, PublicKey, Value, parse
from infra.toml import read_toml

if TYPE_CHECKING:
    from fedround.federation import Federation

V = TypeVar("V", bound=Value)


class S3Settings(Value):
    """A bucket; its credential lies in keys/s3.toml."""

    kind: Literal["s3"] = "s3"
    endpoint: str
    bucket: str
    region: str = "us-east-1"


class DirectorySettings(Value):
    """A folder that all members can reach: for trying things out."""

    kind: Literal["directory"] = "directory"
    path: str


StoreSettings = Annotated[S3Settings | DirectorySettings, Field(discriminator="kind")]


class S3Credential(Value):
    """An access key of the object store."""

    access_key: str
    secret_key: str


class DataSettings(Value):
    """A site's rows. `dataset` names them in the ledger: everything that is spent on these people is charged there."""

    dataset: Name
    train: str
    validation: str
    ledger: str | None = None
    """A folder of ledgers on this machine, by data set: every federation that uses these rows names the same. None: this site
    folder has a ledger of its own, which counts for this federation only."""

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Where the training and the validation rows of the site in `folder` are read."""
        made = self.queries(folder)
        train, validation = folder / self.train, folder / self.validation
        return made.get(train, train), made.get(validation, validation)

    def queries(self, folder: Path) -> dict[Path, Path]:
        """The queries among them, and the file that holds what a database answered to each (`site_workers.database`)."""
        return {folder / path: folder / "snapshot" / f"{side}.parquet"
                for side, path in (("train", self.train), ("validation", self.validation)) if path.lower().endswith(".sql")}

    def ledgers(self, folder: Path) -> Path:
        """Where the ledgers of this machine are that the site in `folder` belongs to."""
        return folder if self.ledger is None else folder / self.ledger

    def home(self, folder: Path) -> Path:
        """Where this data set's ledger is, and what belongs to it."""
        return folder if self.ledger is None else self.ledgers(folder) / self.dataset

    def ledger_file(self, folder: Path) -> Path:
        """The privacy ledger."""
        return self.home(folder) / "ledger.jsonl"


class DatabaseSettings(Value):
    """keys/database.toml: where rows come from, as SQLAlchemy writes it; it may hold a password."""

    url: str


class ForeignSettings(Value):
    """What a client that was written for another product runs with, at this site. Paths may be relative to its folder."""

    python: str
    """The interpreter of the client's own environment."""
    folder: str = "client"
    """Its code; the recipe names each file's digest."""
    data: tuple[str, ...] = ()
    """Files and folders that it may read besides; it writes to none. It finds links to them, under their own last names, in
    the folder that it works in."""
    node: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """What Flower calls node_config, for example partition-id and num-partitions."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables. A value that is the name of data, or of something below it, becomes its path there."""


class SiteSettings(Value):
    """site.toml"""

    name: Name
    federation: Name
    coordinator: PublicKey
    api_url: str
    store: StoreSettings
    data: DataSettings
    recipe: str = "approved/recipe.py"
    contract: str = "approved/contract.json"
    device: DeviceName = "cpu"
    """Where steps are computed: "cpu", "cuda", "cuda:1", or "auto" for an accelerator if this machine has one."""
    foreign: ForeignSettings | None = None
    """What a foreign client runs with, for a recipe that names one."""
    sandbox: Literal["auto", "strict", "off"] = "auto"
    """Whether the recipe's code runs in a sandboxed process of its own: "auto" where this system has what it needs, "strict"
    always or not at all, "off" never."""


class RegionSettings(Value):
    """region.toml"""

    name: Name
    federation: Name
    coordinator: PublicKey
    api_url: str
    store: StoreSettings


class CoordinatorSettings(Value):
    """coordinator.toml"""

    founder: PublicKey | None = None
    """Whose federation log is believed, where this is not the founder's folder but another of several coordinators."""
    federation: str = "federation.toml"
    recipe: str
    contract: str
    start: str | None = None
    """The checkpoint with which every run begins, where the federation file names one."""
    test_set: str | None = None
    root_set: str | None = None
    """Rows that the coordinator itself may train on, for the rule 'fltrust'."""
    api_url: str
    store: StoreSettings
    exports: tuple[str, ...] = ()
    """Who is told of every committed round, after the fact: `mlflow=URI`, `lineage=FILE`, `traces=FILE`."""
    memory_budget_mb: Annotated[int, Field(ge=8, le=65_536)] = 128
    check_regions: Annotated[int, Field(ge=0, le=100)] = 1
    """How many regions' partial sums are computed again in each round from their members' updates, drawn so that no regional
    coordinator knows which. 0: none, until somebody runs 'fedround verify --recompute'."""
    dask: str | None = None
    """Where a Dask scheduler listens whose workers make the aggregation's passes, for very large models."""


def load_toml(kind: type[V], path: Path) -> V:
    """Read a TOML file as `kind`. Raises SetupError if there is no such file, ContractError if it is not of that kind."""
    return parse(kind, read_toml(path), str(path))


def load_federation(path: Path) -> Federation:
    """The federation file. Raises as `load_toml` does, and SetupError if it has no members yet."""
    said = read_toml(path)
    if not said.get("sites"):
        raise SetupError(f"{path} has no member yet: 'fedround federation invite NAME' for each site, and with the key that "
                         "its operator sends back, 'fedround federation add NAME'")
    from fedround.federation import Federation

    return parse(Federation, said, str(path))


def save_toml(value: Value, path: Path, comment: str, *, secret: bool = False) -> None:
    """Write `value` as TOML, whole and durably, with a comment at the head; `secret` files get mode 0600."""
    document = tomlkit.document()
    for line in comment.splitlines():
        document.add(tomlkit.comment(line))
    for key, item in _without_none(value.model_dump(mode="json")).items():
        document.add(key, item)
    write_whole(path, tomlkit.dumps(document).encode(), durable=True, mode=0o600 if secret else 0o644)


def _without_none(item: Any) -> Any:
    """Drop what is None, at every level. TOML has no null: an absent key says the same."""
    if isinstance(item, dict):
        return {key: _without_none(value) for key, value in item.items() if value is not None}
    return [_without_none(one) for one in item] if isinstance(item, list) else item
