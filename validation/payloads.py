"""Judges a tensor file chunk by chunk while it arrives. A refused file is not fetched to its end, and nothing is read twice.

Memory is one chunk. The number of bytes that are fetched follows from the plan's tensors; no declared size is trusted.
"""

from __future__ import annotations

import hashlib

from fedround import codec
from fedround.codec import CHUNK_BYTES, Form
from fedround.compression import wire
from fedround.errors import TrustError
from fedround.records import Plan, Update
from fedround.values import Digest


class Intake:
    """The file of this form whose digest is `sha256`, as it arrives; `chunks`, if they are known, are checked one by one.

    source: what the bytes are and who vouches for them, for the message.
    Whether the numbers are finite is not asked: the aggregation reads them all, and leaves such an update out.
    """

    def __init__(self, form: Form, sha256: Digest, source: str, chunks: tuple[Digest, ...] = ()):
        self.sha256, self.size_bytes, self.offset = sha256, form.size_bytes, len(form.header)
        self._form, self._chunks, self._source = form, chunks, source
        self._hasher, self._taken = hashlib.sha256(), 0

    def anew(self) -> Intake:
        """The same, with nothing taken."""
        return Intake(self._form, self.sha256, self._source, self._chunks)

    @property
    def digest(self) -> bytes:
        """Of what was taken so far."""
        return self._hasher.digest()

    @property
    def wanted(self) -> int:
        """How many bytes the next chunk has: 0 when all are there."""
        return min(CHUNK_BYTES, self.size_bytes - self._taken)

    def take(self, chunk: bytes) -> bytes:
        """Judge the next `wanted` bytes, and return them. Fewer or more bytes mean that it is another file. Refused bytes
        are not taken.

        Raises TrustError if they are not the signed ones, CodecError if the tensors are not the form's.
        """
        if len(chunk) != self.wanted:
            told = f"more than {self.size_bytes}" if len(chunk) > self.wanted else f"{self._taken + len(chunk)}"
            raise TrustError(f"{self._source} has {told} bytes, expected {self.size_bytes}")
        number = self._taken // CHUNK_BYTES
        if self._chunks and hashlib.sha256(chunk).hexdigest() != self._chunks[number]:
            raise TrustError(f"{self._source}: in chunk {number + 1} of {len(self._chunks)} the SHA-256 is not the one in "
                             "the signed answer; the bytes were altered")
        if number == 0:
            codec.check_header(chunk, self.size_bytes, self._form, self._source)
        self._hasher.update(chunk)
        self._taken += len(chunk)
        return chunk

    def done(self) -> None:
        """Raises TrustError unless all bytes were taken and are the ones that `sha256` names."""
        if self.wanted > 0:
            raise TrustError(f"{self._source} has {self._taken} bytes, expected {self.size_bytes}")
        self.judge(self.digest)

    def judge(self, digest: bytes) -> None:
        """Raises TrustError unless this is the digest that names the file."""
        if digest.hex() != self.sha256:
            raise TrustError(f"{self._source}: its SHA-256 is not the one that names it; the bytes were altered")


def form_of(plan: Plan) -> Form:
    """The form of every payload of this plan: as long as the model, or as its compression determines."""
    if (how := plan.agreed.compression) is None:
        return codec.form(plan.sent)
    return wire.form(how, codec.coordinates(plan.sent))


def intake_of(update: Update, plan: Plan, site: str) -> Intake:
    """Judges the payload that `update`, which `site` sent to `plan`, signed for."""
    payload = update.payload
    return Intake(form_of(plan), payload.sha256, f"site '{site}' round {plan.round}: the payload", payload.chunks)
