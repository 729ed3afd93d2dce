"""Setting up several coordinators: their folders, and [[coordinators]] in the federation file.

The founder's folder has the file that all agreed on. Every other coordinator takes it from the federation log, so nobody
sends it around and all have the one that is in force.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomlkit

from fedround.errors import ContractError, SetupError
from fedround.federation import CoordinatorEntry, Federation
from fedround.federation_log import Logged
from fedround.files import make_folders, write_whole
from fedround.signing import Identity, digest
from fedround.values import parse
from infra.federation_log import read_log, signed_length
from infra.invitations import CoordinatorInvitation
from infra.passphrase import passphrase_for
from infra.settings import CoordinatorSettings, load_toml
from infra.stores import open_store
from infra.toml import document_of
from tasks.invitations import check_name
from tasks.new_folder import check_unused, new_folder

_HEAD = "The federation file as it is in force, taken from the federation log: the founder alone can change it."


# -- at the founder ----------------------------------------------------------------------------------------------------


def add_coordinators(folder: Path, keys: Mapping[str, str], founder: str | None = None,
                     silence_s: int | None = None) -> Federation:
    """Name these coordinators, besides those that there are, in the federation file; returns what it says then. All in one
    change: with fewer than three the file would not hold.

    founder: under which name the founder takes turns, too; None: as it was. silence_s: after how long without a commit the
    next one goes on; None: as it was. Raises ContractError, and changes nothing, if the file would not hold.
    """
    path, document = _document(folder)
    known = _entries(document)
    if founder is not None:
        keys = {founder: str(document.get("coordinator")), **keys}
    for name, key in keys.items():
        check_name(name, "coordinator")
        if (other := next((one for one in known if key == one["key"] and name != one["name"]), None)) is not None:
            raise ContractError(f"the key of '{name}' is that of '{other['name']}': every coordinator makes its own with "
                                "'fedround coordinator init'")
    entries = [one for one in known if one["name"] not in keys]
    entries += [parse(CoordinatorEntry, {"name": name, "key": key}, f"coordinator '{name}'").model_dump()
                for name, key in keys.items()]
    if silence_s is not None:
        document["silence_s"] = silence_s
    return _replaced(path, document, entries)


def remove_coordinators(folder: Path, names: Sequence[str], *, revoke: bool = False) -> Federation:
    """Take these out of the federation file; returns what it says then. Nothing that they sign counts from the next plan on.
    Without any left, the founder coordinates alone.

    revoke: their keys are lost or stolen, and never become valid again. Raises ContractError, and changes nothing, if the
    file would not hold: one or two coordinators are too few to take turns.
    """
    path, document = _document(folder)
    known = _entries(document)
    if unknown := sorted({*names} - {one["name"] for one in known}):
        raise ContractError(f"'{unknown[0]}' is none of the coordinators: 'fedround coordinator list' names them")
    gone = [one["key"] for one in known if one["name"] in names]
    if revoke and str(document.get("coordinator")) in gone:
        raise ContractError("the founder's key signs the federation file, so it cannot be revoked in it: a federation with a "
                            "lost founder's key begins anew")
    if revoke:
        document["revoked"] = [*document.get("revoked", []), *gone]
    return _replaced(path, document, [one for one in known if one["name"] not in names])


def _document(folder: Path) -> tuple[Path, tomlkit.TOMLDocument]:
    path = folder / load_toml(CoordinatorSettings, folder / "coordinator.toml").federation
    return path, document_of(path)


def _entries(document: tomlkit.TOMLDocument) -> list[dict[str, str]]:
    return [{"name": str(one["name"]), "key": str(one["key"])} for one in document.unwrap().get("coordinators", [])]


def _replaced(path: Path, document: tomlkit.TOMLDocument, entries: list[dict[str, str]]) -> Federation:
    found = parse(Federation, {**document.unwrap(), "coordinators": entries}, str(path))
    document.pop("coordinators", None)
    if entries:
        document["coordinators"] = tomlkit.aot()
        for one in entries:
            document["coordinators"].append(tomlkit.item(one))
    write_whole(path, tomlkit.dumps(document).encode(), durable=True)
    return found


# -- at another coordinator --------------------------------------------------------------------------------------------


def create_other(folder: Path, asked: CoordinatorInvitation, test_set: Path | None = None, start: Path | None = None) -> str:
    """Make another coordinator's folder with a new key; returns the public key. It has no federation file yet (`take_file`).

    test_set, start: the founder's files, if it has such. Raises SetupError if the folder is in use, or one of them is
    missing.
    """
    check_unused(folder)
    settings, given = asked.settings, {"test_set": test_set, "start": start}
    for what, words in (("test_set", "test set (--test-set)"), ("start", "checkpoint to begin with (--start-from)")):
        if (getattr(settings, what) is None) != (given[what] is None):
            raise SetupError(f"federation '{asked.federation}': the founder has {'no' if given[what] else 'a'} {words}; all "
                             "coordinators have the same")
    identity = Identity.generate()
    with new_folder(folder, settings, identity, asked.credential) as new:
        make_folders(new / "approved", mode=0o700)
        write_whole(new / settings.recipe, asked.recipe.encode(), durable=True)
        write_whole(new / settings.contract, asked.contract.encode(), durable=True)
        for what, file in given.items():
            if file is not None:
                shutil.copyfile(file, new / str(getattr(settings, what)))
    return identity.key


def take_file(folder: Path) -> Logged:
    """Write the federation file that is in force into the folder of a coordinator that is not the founder; returns the log's
    entry that names it.

    Every entry is verified with the founder's key, from the invitation. Raises ContractError if the file does not name this
    folder's key, or names another recipe or contract than lie here: then nothing is written.
    """
    settings, own = load_toml(CoordinatorSettings, folder / "coordinator.toml"), folder / "keys" / "identity.pem"
    if settings.founder is None:
        raise ContractError(f"{folder} is the founder's folder, whose federation file is the one that others take")
    store = open_store(settings.store, folder)
    log = read_log(store, settings.founder, signed_length(store, settings.founder))
    if not log:
        raise SetupError("no federation file is in force yet: the founder runs 'fedround deploy' first")
    federation, key = log[-1].federation, Identity.load(own, passphrase_for(own)).key
    if key not in {one.key for one in federation.coordinators}:
        raise ContractError(f"federation '{federation.name}': the file in force does not name this folder's key; the founder "
                            f"runs 'fedround coordinator add NAME={key}' and 'fedround deploy'")
    for what, path in (("recipe_digest", settings.recipe), ("contract_digest", settings.contract)):
        if getattr(federation, what) != digest((folder / path).read_bytes()):
            raise ContractError(f"federation '{federation.name}': {path} is not the file that is agreed on; ask the founder "
                                "for it, read it, and put it there")
    said = federation.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    for name, value in said.items():
        document.add(name, value)
    write_whole(folder / settings.federation, tomlkit.dumps(document).encode(), durable=True)
    return log[-1]
