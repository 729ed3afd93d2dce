"""What the coordinator's deployments are called: each says what it does, in the order in which people need it.

The Prefect UI's page sorts by name, and digits come first, whatever the database's language. A site's: `infra.asking`.
"""

from __future__ import annotations

_NAMES = {"federated-training": "1-train-{}", "federated-round": "2-one-more-round-{}", "federated-measurement": "3-count-{}",
          "federated-drift": "4-look-for-drift-{}", "federated-promotion": "5-promote-{}",
          "federated-join": "6-join-two-sites-{}"}


def name_of(flow: str, federation: str) -> str:
    """The deployment's own name."""
    return _NAMES[flow].format(federation)


def full_name(flow: str, federation: str) -> str:
    """As the API finds it."""
    return f"{flow}/{name_of(flow, federation)}"
