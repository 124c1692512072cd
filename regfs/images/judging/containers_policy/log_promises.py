"""Checks that Rekor's log promised to keep a signature, and when.

The promise (signed entry timestamp) is a signature by the log's key; the body of the entry must have the same
signature, signer and signed bytes, or a promise for another signature would be accepted (CVE-2022-36056). Whether the
log still has the entry is not asked. Sources: cosign, specs/SIGNATURE_SPEC.md; Rekor, "Signed Entry Timestamp". Used by
signers.py. Thread rule: functions; any thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from regfs.errors import BadContent
from regfs.images.judging.keys import is_signed_by
from regfs.model.attestations.signatures import HASHED, Signature, logged_in


def logged_s(signature: Signature, signer: bytes, log_keys: Iterable[object]) -> int:
    """Return when *signature* was logged, in seconds since 1970; *signer* is the certificate or key, in DER.

    Raises BadContent if no log with one of *log_keys* promised to keep it.
    """
    entry = signature.entry
    if entry is None:
        raise BadContent("no log has promised to keep it")
    if not any(is_signed_by(key, entry.promise, entry.promised_bytes) for key in log_keys):
        raise BadContent("the promise to keep it is not one of the log that the policy names")
    logged = logged_in(entry.body)
    signed = signature.message if signature.kind == HASHED else signature.payload
    wanted = (signature.kind, hashlib.sha256(signed).hexdigest(), signature.signature, signer)
    if logged != wanted:
        raise BadContent("its entry in the log is about another signature")
    return entry.logged_s
