"""Setting up a federation: the coordinator's folder, members, and regions."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT

from fedround import layout
from fedround.errors import ContractError, SetupError, StoreDeniedError, StoreUnavailableError
from fedround.federation import Federation, SiteEntry
from fedround.files import make_folders, write_whole
from fedround.learning.parts import WHOLE
from fedround.learning.recipe import initial, load_recipe
from fedround.learning.start import canonical, read
from fedround.privacy.spec import GradientPrivacy
from fedround.regions.spec import Region
from fedround.signing import Identity, digest
from fedround.values import parse
from infra.documents import NOT_OURS
from infra.federation_log import read_rotation
from infra.settings import CoordinatorSettings, S3Credential, load_toml
from infra.stores import ObjectStore, Patience, open_store
from infra.toml import document_of
from tasks.new_folder import check_unused, new_folder
from tasks.trial import try_recipe
from validation.contract import load_contract
from validation.row_files import is_there, parts_of

_LOOK_S = 20.0
"""How long a store may take to say whether it is in use."""

_HEAD = """The federation file: who takes part, and what every round asks for.
Edit it, then run 'fedround federation check' and 'fedround deploy'. Every plan names the digest of this file."""


def create_coordinator(folder: Path, federation: dict[str, Any], settings: CoordinatorSettings, recipe: Path,
                       contract: Path, credential: S3Credential | None, test_set: Path | None = None,
                       start: Path | None = None) -> str:
    """Make a coordinator's folder with a new key and a federation file without members; returns the public key.

    federation: the agreed settings, as in a federation file without members, keys and digests. start: a checkpoint with which
    every run begins, as a safetensors file; settings.start says where it goes.
    Raises SetupError if the folder is in use, ContractError if a file is not what it should be; nothing is left then.
    """
    check_unused(folder)
    if test_set is not None and (not is_there(test_set) or parts_of(test_set)[0].name):
        raise SetupError(f"no test set at {test_set}: give the path of a parquet or CSV file")
    identity = Identity.generate()
    loaded = load_recipe(recipe)
    agreed = {**federation, "coordinator": identity.key, "recipe": loaded.name, "recipe_digest": loaded.digest,
              "contract_digest": load_contract(contract).digest}
    begin = None if start is None else canonical(start)
    if begin is not None:
        agreed["start"] = digest(begin)
    checked = _check_settings(agreed).learning(loaded.learner)
    if loaded.learner is not None:
        agreed["training"] = loaded.learner.model_dump(mode="json", exclude_none=True)
    if begin is not None or checked.parts != WHOLE:
        initial(loaded, 0, checked.parts, per_record=isinstance(checked.privacy, GradientPrivacy),
                start=None if begin is None else read(begin))
    if test_set is not None:
        try_recipe(recipe, test_set, checked, contract)
    with new_folder(folder, settings, identity, credential) as new:
        make_folders(new / "approved", mode=0o700)
        write_whole(new / settings.recipe, recipe.read_bytes(), durable=True)
        write_whole(new / settings.contract, contract.read_bytes(), durable=True)
        if test_set is not None and settings.test_set is not None:
            shutil.copyfile(test_set, new / settings.test_set)
        if begin is not None and settings.start is not None:
            write_whole(new / settings.start, begin, durable=True)
        write_whole(new / settings.federation, _federation_file(agreed).encode(), durable=True)
        _check_free(open_store(settings.store, new))
    return identity.key


def _check_free(store: ObjectStore) -> None:
    """Raises ContractError if another federation lives in the store: under its log, no site would believe this one. A store
    that does not answer yet is looked at by 'fedround federation check'.
    """
    with suppress(StoreUnavailableError, StoreDeniedError):
        entries = store.within(Patience(_LOOK_S)).list(layout.LOG)
        if any(layout.parse_log_entry(key) is not None for key in entries):
            raise ContractError("a federation lives in this bucket already: choose another bucket, since members read one "
                                "federation log in it. If it is this federation, and its folder is lost, restore the folder "
                                "from its backup: a new key cannot continue the log")


def add_member(folder: Path, name: str, key: str, weight: float, rows: int | None = None) -> None:
    """Add a site to the federation file. Raises ContractError, and changes nothing, if the file would not hold."""
    path, document = _federation_document(folder)
    member = parse(SiteEntry, {"name": name, "key": key, "weight": weight, "rows": rows}, f"member '{name}'")
    entry = member.model_dump(exclude_defaults=True)
    members = [dict(site) for site in document.get("sites", [])] + [entry]
    # The members are not all there yet.
    stand_in = {"quorum": 1, "enough": None, "selection": None, "choices": None,
                "aggregation": {"rule": {"name": "weighted_mean"}}}
    for_all = ({"combine", "training"} if "combine" in document else set()) | {"regions"}
    said = {key: value for key, value in document.unwrap().items() if key not in for_all}
    parse(Federation, {**said, "sites": members, **stand_in}, str(path))
    document.setdefault("sites", tomlkit.aot()).append(tomlkit.item(entry))
    _replace(path, document)


def give_mandate(folder: Path, region: Region) -> tuple[str, ...]:
    """Make a regional coordinator of this key for these members, or renew or change its mandate. It holds from the next plan
    on, once every member is in exactly one region. Returns the members that are in none yet.

    Raises ContractError, and changes nothing, if a member is unknown or in another region, or the rest of the file does not
    go with regions.
    """
    path, document = _federation_document(folder)
    others = [one for one in document.unwrap().get("regions", []) if one.get("name") != region.name]
    for name in region.members:
        _entry(document, name)
        if (other := next((one["name"] for one in others if name in one["members"]), None)) is not None:
            raise ContractError(f"'{name}' is in region '{other}'; every member is in exactly one. Give '{other}' a mandate "
                                "without it first")
    regions = [*others, region.model_dump(mode="json", exclude_none=True)]
    inside = {name for one in regions for name in one["members"]}
    outside = tuple(name for site in document["sites"] if (name := str(site["name"])) not in inside)
    if not outside:
        parse(Federation, {**document.unwrap(), "regions": regions}, str(path))
    document.pop("regions", None)
    document["regions"] = tomlkit.aot()
    for one in sorted(regions, key=lambda one: str(one["name"])):
        document["regions"].append(tomlkit.item(one))
    _replace(path, document)
    return outside


def rotate_key(folder: Path, site: str, key: str | None = None) -> str:
    """Take as the site's key, from the next plan on, the one that its old key names in the store; returns it.

    key: which one, if the old key has named several.
    Raises ContractError if the store has no such statement signed by the site's present key, or if there are several and
    `key` is None.
    """
    path, document = _federation_document(folder)
    settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
    federation = parse(Federation, document.unwrap(), str(path))
    named = _named(open_store(settings.store, folder), federation, site)
    if key is not None:
        named = [new for new in named if new == key]
    if len(named) > 1:
        raise ContractError(f"'{site}' has named {len(named)} new keys: {', '.join(named)}. Ask its operator which one it is "
                            "and give --key; if the operator made only one, somebody else has the present key: "
                            "'fedround federation revoke'")
    if not named:
        raise ContractError(f"'{site}' has named no {'such' if key else 'new'} key that its present key signed for: its "
                            "operator runs 'fedround site rotate' first. If the key is lost or stolen: 'fedround federation "
                            "revoke'")
    _entry(document, site)["key"] = named[0]
    parse(Federation, document.unwrap(), str(path))
    _replace(path, document)
    return named[0]


def _named(store: ObjectStore, federation: Federation, site: str) -> list[str]:
    """The keys that the site's present key names, without those that any member has or had."""
    old, used = federation.site(site).key, {member.key for member in federation.sites} | set(federation.revoked)
    named = []
    for name in store.list(layout.rotations(site)):
        if (found := layout.parse_rotation(name)) is None or (new := found[1]) in used:
            continue
        try:
            read_rotation(store, site, old, new)
        except NOT_OURS:
            continue
        named.append(new)
    return named


def revoke_key(folder: Path, site: str, quorum: int | None = None) -> str:
    """Revoke the site's key; returns it. No plan from the next one on asks for it, and it never becomes valid again.

    The site can be enrolled again with a new key.
    quorum: what every round asks for with one member less.
    Raises ContractError if the federation cannot be without the site; nothing is changed then.
    """
    path, document = _federation_document(folder)
    parse(Federation, document.unwrap(), str(path))
    entry = _entry(document, site)
    key = str(entry["key"])
    document["revoked"] = [*document.get("revoked", []), key]
    if quorum is not None:
        document["quorum"] = quorum
    members = tomlkit.aot()
    for member in document["sites"]:
        if member is not entry:
            members.append(member)
    document["sites"] = members
    for region in document.get("regions", []):
        region["members"] = [name for name in region["members"] if name != site]
    parse(Federation, document.unwrap(), f"{path} without '{site}'")
    _replace(path, document)
    return key


def _federation_document(folder: Path) -> tuple[Path, tomlkit.TOMLDocument]:
    path = folder / load_toml(CoordinatorSettings, folder / "coordinator.toml").federation
    document = document_of(path)
    listed = document.get("sites", [])
    if not isinstance(listed, list) or not all(isinstance(site, dict) for site in listed):
        raise ContractError(f"{path}: 'sites' is no list of tables: every member is a [[sites]] with name, key and weight")
    if not isinstance(listed, AoT):                     # an empty list, or a list of tables in one line
        document.pop("sites", None)
        for site in listed:
            document.setdefault("sites", tomlkit.aot()).append(tomlkit.item(dict(site)))
    return path, document


def _entry(document: tomlkit.TOMLDocument, site: str) -> Any:
    for entry in document.get("sites", []):
        if entry.get("name") == site:
            return entry
    raise ContractError(f"the federation has no site '{site}': 'fedround federation show' names its members")


def _replace(path: Path, document: tomlkit.TOMLDocument) -> None:
    write_whole(path, tomlkit.dumps(document).encode(), durable=True)


def _federation_file(agreed: dict[str, Any]) -> str:
    document = tomlkit.document()
    for line in _HEAD.splitlines():
        document.add(tomlkit.comment(line))
    for key, value in agreed.items():
        document.add(key, value)
    return tomlkit.dumps(document)


def _check_settings(agreed: dict[str, Any]) -> Federation:
    """Check everything that does not depend on the members, with stand-ins for them: as many as the quorum asks for, or as a
    secure sum of which the quorum answers has, or as close a round early, or as a selection asks.
    """
    quorum, combine, enough = agreed.get("quorum"), agreed.get("combine"), agreed.get("enough")
    dropouts = combine.get("dropouts") if isinstance(combine, dict) else 0
    count = (quorum if isinstance(quorum, int) else 1) + (dropouts if isinstance(dropouts, int) else 0)
    selection = agreed.get("selection")
    asked = selection.get("sites") if isinstance(selection, dict) else None
    count = max(1, count, *(number for number in (enough, asked) if isinstance(number, int)))
    stand_ins = [{"name": f"member-{n}", "key": f"ed25519:{n + 1:064x}", "weight": 1.0, "rows": 1}
                 for n in range(min(count, 1000))]
    if "regions" in agreed:
        raise ContractError("federation settings: regions name members and keys that are not there yet; once they are, "
                            "'fedround federation mandate' adds each region")
    return parse(Federation, {**agreed, "sites": stand_ins}, "federation settings")
