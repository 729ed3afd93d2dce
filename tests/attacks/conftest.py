"""A federation whose second round is answered and not yet committed, as the tests of the coordinator's steps have it."""

from tests.tasks.conftest import answered, nobody_waits  # noqa: F401
