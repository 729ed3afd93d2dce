"""fedround verify --rows: is a file of synthetic rows what its signed card says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedround.errors import ContractError
from fedround.spoken import how_many
from fedround_cli.output import out, print_json
from fedround_cli.synth import card_of
from fedround_cli.terminal import boxed

if TYPE_CHECKING:
    from infra.stores import ObjectStore


def verify_rows(store: ObjectStore, key: str, file: Path, *, as_json: bool) -> None:
    """Prove it and show what was proven. Raises TrustError at the first thing that does not hold."""
    from fedround.privacy.profile import upward
    from tasks.synthetic import prove_rows

    for wanted in (file, card_of(file)):
        if not wanted.is_file():
            raise ContractError(f"{wanted}: there is no such file; --rows wants a file of 'fedround synth' and its card "
                                f"beside it, {card_of(file).name}")
    proof = prove_rows(store, key, file, file.read_bytes(), card_of(file).read_bytes())
    card, finding = proof.card, proof.finding
    if as_json:
        print_json({"card": card.model_dump(mode="json"), "epsilon": proof.epsilon, "answers": finding.answers,
                    "refused": finding.refusals, "unseen": finding.unseen, "lost": finding.lost,
                    "same_bytes": proof.same_bytes, "coordinator": key})
        return
    vouched = ("added up again from the sites' signed answers" if not (finding.unseen or finding.lost) else
               "the coordinator's word: not every answer may be read")
    cost = ("nothing is promised" if proof.epsilon is None else
            f"epsilon {upward(proof.epsilon, 4)} at each site, by the plan's noise")
    again = "the same bytes" if proof.same_bytes else "the same values; other versions of libraries wrote the bytes"
    out.print(boxed(
        f"[green]The card holds.[/] {how_many(card.rows, 'row')} of {how_many(card.blueprint.width, 'column')}\n"
        f"Card        signed by the coordinator, and of these bytes (SHA-256 {card.file[:16]})\n"
        f"Question    run '{card.run}', round {card.round}, attempt {card.attempt}: for this blueprint's tables, no others\n"
        f"Answers     {', '.join(finding.answers)}; totals are {vouched}\n"
        f"Charge      {cost}\n"
        f"Drawn       again with seed {card.seed}: {again}\n"
        f"Joined      {', '.join(' – '.join(pair) for pair in card.pairs) or 'no columns'}\n"
        f"Coordinator {key}", title="synthetic rows"), highlight=False, soft_wrap=False)
    out.say("[dim]not promised: {}[/]", card.not_promised)
