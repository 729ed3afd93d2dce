"""Every error that fedround raises on purpose.

::

    FedroundError                 catch this to catch all of ours
    ├── ContractError             a value, file or message is not what was agreed (unknown key, bad bound, wrong shape)
    │   ├── CodecError            bytes that are not the tensors that the plan describes
    │   ├── DivergedError         a model says no number of some rows any more
    │   └── ToleranceError        a theorem's condition does not hold (too few updates for this many liars)
    ├── TrustError                a signature, key, digest or chain does not hold
    │   ├── SignatureError        the signature is missing, malformed or by another key
    │   ├── ChainError            a document does not continue the history it claims to continue
    │   └── LostError             what a member signed was altered, or is gone, since the history named it
    ├── PrivacyError              the accountant or the ledger cannot vouch for what was asked
    │   ├── BudgetError           the spending would exceed what the site's policy allows
    │   ├── LedgerError           the ledger file was altered, truncated or is not ours
    │   └── AuditError            the audit log was altered, truncated, or does not agree with ledger and outbox
    ├── StoreError                the object store cannot do what it must
    │   ├── NotFoundError         no object under that key
    │   ├── TooLargeError         the object is larger than anything that may lie there
    │   ├── ConflictError         an object is already there, with other bytes
    │   ├── StoreDeniedError      the credential may not do that
    │   └── StoreUnavailableError no answer: wrong address, server down, no space, bytes that were damaged on the way
    │       └── TooSlowError      it took longer than there was time for
    ├── QuorumError               too few sites answered before the deadline
    │   └── DealtWrongError       a member's dealt shares make no secret: a sum under masks cannot be read
    ├── SetupError                this machine is not ready (missing file, port in use, service down)
    └── Cancelled                 the work was told to stop, and stopped before anything left

A message says what was expected, what came, for whom, and what to do next; it never holds a record or a tensor.
A site's "no" is not an error: it is a signed `Refusal`.
"""


class FedroundError(Exception):
    """Base of every error that fedround raises on purpose."""


class ContractError(FedroundError):
    """A value, file or message is not what was agreed."""


class CodecError(ContractError):
    """Bytes that are not the tensors that the plan describes."""


class DivergedError(ContractError):
    """A model says no finite number of some rows any more: it has diverged."""


class ToleranceError(ContractError):
    """A theorem's condition does not hold for this many updates."""


class TrustError(FedroundError):
    """A signature, key, digest or chain does not hold."""


class SignatureError(TrustError):
    """The signature is missing, malformed or made by another key."""


class ChainError(TrustError):
    """A document does not continue the history that it claims to continue."""


class LostError(TrustError):
    """What a member signed is not in the store as the history names it: it was altered, or is gone."""


class PrivacyError(FedroundError):
    """The accountant or the ledger cannot vouch for what was asked."""


class BudgetError(PrivacyError):
    """The spending would exceed what the site's policy allows."""


class LedgerError(PrivacyError):
    """The ledger file was altered, truncated or belongs to another data set."""


class AuditError(PrivacyError):
    """The site's audit log was altered or truncated, or does not agree with its ledger and its outbox."""


class StoreError(FedroundError):
    """The object store cannot do what it must."""


class NotFoundError(StoreError):
    """No object lies under that key."""


class TooLargeError(StoreError):
    """The object under that key is larger than anything that may lie there, and was not read."""


class ConflictError(StoreError):
    """An object with other bytes already lies under that key."""


class StoreDeniedError(StoreError):
    """The credential may not do that."""


class StoreUnavailableError(StoreError):
    """The store did not answer, answered with damaged bytes, or could not keep what it was given."""


class TooSlowError(StoreUnavailableError):
    """What a step waits for took longer than the step may."""


class QuorumError(FedroundError):
    """Too few sites answered before the deadline."""


class DealtWrongError(QuorumError):
    """The shares that a member dealt make no secret, so the masks stay on the sum, whoever else says something."""


class SetupError(FedroundError):
    """Something on this machine is not ready: a file is missing, a port is in use, a service is down."""


class Cancelled(FedroundError):  # noqa: N818 - an instruction that was followed, not a fault
    """The work was told to stop, and stopped before anything left."""
