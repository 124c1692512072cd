"""Parses the trust policy of notation, trustpolicy.json, which decides which images may be shown.

    {"version": "1.0",
     "trustPolicies": [{"name": "ours", "registryScopes": ["registry.example/team/app"],
                        "signatureVerification": {"level": "strict", "override": {"revocation": "skip"}},
                        "trustStores": ["ca:acme"],
                        "trustedIdentities": ["x509.subject: C=US, ST=WA, O=acme"]}]}

The policy with the image's repository in its scopes decides, else the policy of "*"; without either the image is
refused. A failed validation that the level enforces refuses an image; one that it logs is only logged. Source: Notary
Project, trust-store-trust-policy.md. Used by images/judging/notation/ and app/policy.py. Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from regfs.errors import BadContent, InvalidOption, TooLarge
from regfs.model.strict_json import Fields, parse_document

AUTHENTICITY, TIMESTAMP, EXPIRY, REVOCATION = "authenticity", "authenticTimestamp", "expiry", "revocation"
CA, SIGNING_AUTHORITY, TSA = "ca", "signingAuthority", "tsa"
SKIP, AUDIT = "skip", "audit"
_ENFORCED = {
    "strict": {AUTHENTICITY, TIMESTAMP, EXPIRY, REVOCATION},
    "permissive": {AUTHENTICITY},
    AUDIT: set[str](),
    SKIP: set[str](),
}
_VALIDATIONS = {
    AUTHENTICITY: ("enforce", "log"), TIMESTAMP: ("enforce", "log"), EXPIRY: ("enforce", "log"),
    REVOCATION: ("enforce", "log", "skip"),
}  # fmt: skip
_KEYS = ("name", "registryScopes", "signatureVerification", "trustStores", "trustedIdentities")
_ALL = "*"
_SUBJECT = "x509.subject:"
_OTHER_NAMES = {"S": "ST"}
_WANTED = ("C", "ST", "O")
_STORE = re.compile(r"(ca|signingAuthority|tsa):([A-Za-z0-9_.-]+)", re.ASCII)
_PART = re.compile(r"\s*([A-Za-z0-9.]+)\s*=\s*((?:\\.|[^\\,;])*)", re.ASCII)
_ESCAPED = re.compile(r"\\(.)")
_MOST_BYTES = 1 << 20
_MOST_ENTRIES = 1000

Subject = tuple[tuple[str, str], ...]
"""Attributes that a subject must have, `O` and `acme`."""


class TrustPolicy(NamedTuple):
    """One entry of the file. *enforced* are the validations that refuse an image; each of *stores* is (type, name).

    *identities* are the accepted subjects of a signer's certificate; None: any subject that a certificate of *stores*
    vouches for. *timestamp_after_expiry*: timestamps are verified only if a certificate has expired.
    """

    name: str
    level: str
    enforced: frozenset[str]
    is_revocation_skipped: bool
    stores: tuple[tuple[str, str], ...]
    identities: tuple[Subject, ...] | None
    timestamp_after_expiry: bool


class NotationPolicy(NamedTuple):
    """Trust policies by repository, and the one for all others; *name* is the file."""

    name: str
    scopes: Mapping[str, TrustPolicy]
    default: TrustPolicy | None

    def of(self, repository: str) -> TrustPolicy | None:
        """Return the policy for *repository*, `registry/path`; None if no image of it may be shown."""
        return self.scopes.get(repository, self.default)


def is_notation(content: bytes) -> bool:
    """Tell whether *content* is a trust policy of notation, valid or not, and not a containers-policy.json."""
    try:
        return parse_document(content, error=BadContent, limit=_MOST_BYTES).has("trustPolicies")
    except (BadContent, TooLarge):
        return False


def parse_notation_policy(content: bytes, name: str) -> NotationPolicy:
    """Return the policy *content* of the file *name*. Raises InvalidOption, naming file and place."""
    try:
        document = parse_document(content, error=BadContent, limit=_MOST_BYTES)
        _only(document, ("version", "trustPolicies"))
        if document.text("version") != "1.0":
            document.fail("version", "is not 1.0")
        scopes: dict[str, TrustPolicy] = {}
        names: set[str] = set()
        for fields in document.children("trustPolicies", limit=_MOST_ENTRIES):
            policy = _policy(fields)
            if not policy.name or policy.name in names:
                fields.fail("name", "is missing, or is that of another policy")
            names.add(policy.name)
            for scope in _scopes(fields, policy):
                if scope in scopes:
                    fields.fail("registryScopes", f"has {scope[:200]!r}, which another policy has")
                scopes[scope] = policy
    except (BadContent, TooLarge) as error:
        raise InvalidOption(
            f"the policy {name} cannot be read, so that no image may be shown: {error}; with --policy none, all are"
        ) from None
    return NotationPolicy(name, scopes, scopes.pop(_ALL, None))


def _policy(fields: Fields) -> TrustPolicy:
    _only(fields, _KEYS)
    level, enforced, skipped, after_expiry = _level(fields)
    stores = tuple(_stores(fields))
    texts = fields.texts("trustedIdentities", limit=_MOST_ENTRIES)
    if level != SKIP and not (stores and texts):
        fields.fail("trustStores", "or trustedIdentities is empty")
    if _ALL in texts and len(texts) > 1:
        fields.fail("trustedIdentities", 'has "*" beside others')
    identities = None if _ALL in texts else tuple(_subject(fields, text) for text in texts)
    for first in identities or ():
        if any(other is not first and set(first) <= set(other) for other in identities or ()):
            fields.fail("trustedIdentities", "has two that one certificate can match")
    return TrustPolicy(fields.text("name"), level, enforced, skipped, stores, identities, after_expiry)


def _level(fields: Fields) -> tuple[str, frozenset[str], bool, bool]:
    verification = fields.child("signatureVerification")
    level = "" if verification is None else verification.text("level")
    if verification is None or level not in _ENFORCED:
        fields.fail(
            "signatureVerification", f"has the level {level[:50]!r}: strict, permissive, audit or skip is right"
        )
    _only(verification, ("level", "override", "verifyTimestamp"))
    override = verification.mapping("override")
    if override and level == SKIP:
        verification.fail("override", "has nothing to override in skip")
    enforced = set(_ENFORCED[level])
    for validation, action in override.items():
        if action not in _VALIDATIONS.get(validation, ()):
            verification.fail("override", f"has {validation[:50]!r}: {action[:50]!r}, which is not known")
        (enforced.add if action == "enforce" else enforced.discard)(validation)
    timestamp = verification.text("verifyTimestamp", "always")
    if timestamp not in ("always", "afterCertExpiry"):
        verification.fail("verifyTimestamp", "is neither always nor afterCertExpiry")
    return level, frozenset(enforced), override.get(REVOCATION) == SKIP, timestamp == "afterCertExpiry"


def _scopes(fields: Fields, policy: TrustPolicy) -> tuple[str, ...]:
    scopes = fields.texts("registryScopes", limit=_MOST_ENTRIES)
    if not scopes:
        fields.fail("registryScopes", "is empty")
    if any(_ALL in scope for scope in scopes) and scopes != (_ALL,):
        fields.fail("registryScopes", 'has "*" beside others, or in one')
    if scopes == (_ALL,) and policy.level == SKIP:
        fields.fail("registryScopes", 'is "*", which cannot be skipped: name the repositories')
    for scope in scopes:
        if scope != _ALL and ("/" not in scope or "@" in scope or ":" in scope.rpartition("/")[2]):
            fields.fail("registryScopes", f"has {scope[:200]!r}: registry.example/team/app is right")
    return scopes


def _stores(fields: Fields) -> list[tuple[str, str]]:
    found = []
    for text in fields.texts("trustStores", limit=_MOST_ENTRIES):
        for each in text.split(","):
            store = _STORE.fullmatch(each.strip())
            if store is None or store[2] in (".", ".."):
                fields.fail("trustStores", f"has {each[:100]!r}: ca:NAME is right")
            found.append((store[1], store[2]))
    return found


def _subject(fields: Fields, text: str) -> Subject:
    """Return the attributes that an identity names. Source: the same, "Trusted Identities Constraints"."""
    found: dict[str, str] = {}
    rest = text.removeprefix(_SUBJECT)
    if rest == text:
        fields.fail("trustedIdentities", f"has {text[:100]!r}: x509.subject: C=…, ST=…, O=… is right")
    at = 0
    while at < len(rest):
        part = _PART.match(rest, at)
        key = "" if part is None else _OTHER_NAMES.get(part[1].upper(), part[1].upper())
        if part is None or key in found or rest[part.end() : part.end() + 1] not in ("", ","):
            fields.fail("trustedIdentities", f"has {text[:100]!r}, which is not a subject")
        value = part[2] if part[2].endswith("\\ ") else part[2].rstrip()
        found[key] = _ESCAPED.sub(r"\1", value)
        at = part.end() + 1
    if not all(found.get(key) for key in _WANTED):
        fields.fail("trustedIdentities", f"has {text[:100]!r}: C, ST and O must be in it")
    return tuple(found.items())


def _only(fields: Fields, keys: tuple[str, ...]) -> None:
    for key in fields.values:
        if key not in keys:
            fields.fail(key[:100], "is not known")
