"""A recipe that the operator has approved is tried on the site's rows before it becomes the site's. Nothing leaves."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fedround.learning.trial import try_out
from infra.settings import SiteSettings, load_toml
from site_workers.apart.opening import opened, rest
from site_workers.approval import Candidate
from site_workers.policy import SitePolicy
from validation.encoding import encode_in_subprocess
from validation.row_files import is_there


def try_candidate(folder: Path, settings: SiteSettings, candidate: Candidate) -> tuple[str, ...]:
    """Notes on the candidate, from running its code.

    Raises ContractError, which quotes no value, if the recipe cannot encode the rows, encodes a row differently beside other
    rows, or its model cannot be scored or trained; SetupError if it does not end in the time that one plan may take.
    """
    policy = load_toml(SitePolicy, folder / "policy.toml")
    rows, _ = settings.data.files(folder)
    if not is_there(rows):
        return (f"there are no rows at {rows} yet, so that it was not tried: run 'fedround site check' when they are there",)
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "recipe.py"
        file.write_bytes(candidate.body)
        (examples,) = encode_in_subprocess([rows], file, candidate.digest, policy.limits.seconds)
        recipe = opened(file, candidate.digest, settings, policy.limits)
        try:
            notes = try_out(recipe, examples.form, None, per_record=not {"record", "person"}.isdisjoint(policy.units))
        finally:
            rest(recipe)
    left_out = len(examples) - int(examples.counts_N.sum())
    return notes if left_out == 0 else (
        *notes, f"{left_out} of {len(examples)} rows cannot be encoded, and would count for nothing")
