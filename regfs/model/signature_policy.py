"""Parses containers-policy.json, which decides which images may be shown, as podman, skopeo and CRI-O read it.

    {"default": [{"type": "insecureAcceptAnything"}],
     "transports": {"docker": {"registry.example/team": [{"type": "sigstoreSigned", "keyPath": "/etc/key.pub",
                                                          "signedIdentity": {"type": "matchRepository"}}]}}}

The most specific scope decides: a repository, a prefix of its path, its host, `*.` and a domain, "", then the default.
All requirements in its list must hold. A file with an unknown key or type is refused as a whole. A requirement that
regfs cannot verify (GPG's signedBy; pki, certificates of other authorities than Fulcio) refuses each image in its
scope, with the reason. regfs judges digests: a scope that names a tag is refused, and so is an identity that wants one.
Source: containers-policy.json(5). Used by images/judging/ and app/policy.py. Pure; any thread.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from regfs.errors import BadContent, InvalidName, InvalidOption, TooLarge
from regfs.model.names import RepositoryName, parse_reference
from regfs.model.strict_json import Fields, parse_document

_MOST_BYTES = 1 << 20
_MOST_ENTRIES = 1000
_ACCEPT, _REJECT, _GPG, _SIGSTORE = "insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned"
_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_LOG_KEYS = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_AUTHORITIES = ("caPath", "", "caData", "")
_FULCIO = ("caPath", "caData", "oidcIssuer", "subjectEmail")
_IDENTITIES = {
    "matchExact": (), "matchRepoDigestOrExact": (), "matchRepository": (), "exactReference": ("dockerReference",),
    "exactRepository": ("dockerRepository",), "remapIdentity": ("prefix", "signedPrefix"),
}  # fmt: skip


class Pem(NamedTuple):
    """Keys or certificates in PEM that a policy names: in the files *paths*, or in itself (*texts*)."""

    paths: tuple[str, ...] = ()
    texts: tuple[bytes, ...] = ()

    @property
    def is_given(self) -> bool:
        """Whether the policy names any."""
        return bool(self.paths or self.texts)


class Fulcio(NamedTuple):
    """A signer with a certificate of Fulcio (*authorities*) for *email*, which *issuer* confirmed."""

    authorities: Pem
    issuer: str
    email: str

    def __str__(self) -> str:
        return f"{self.email} (issuer {self.issuer})"


class Requirement(NamedTuple):
    """What an image needs to be shown.

    *refusal*, if not empty, is the reason why no image is accepted. Else a signature by one of *keys* or by *fulcio* is
    needed; if the requirement has neither, every image is accepted. With *log*, the signature must be in the log
    (Rekor) of one of these keys. It must name *repository*; "" means the image's own.
    """

    refusal: str = ""
    keys: Pem = Pem()
    fulcio: Fulcio | None = None
    log: Pem = Pem()
    repository: str = ""

    @property
    def accepts_anything(self) -> bool:
        """Whether every image is shown."""
        return not self.refusal and not self.wants_signature

    @property
    def wants_signature(self) -> bool:
        """Whether a signature is needed."""
        return self.keys.is_given or self.fulcio is not None

    @property
    def signer(self) -> str:
        """The wanted signer, for messages."""
        return "a key of the policy" if self.fulcio is None else str(self.fulcio)


class Policy(NamedTuple):
    """Requirements by scope; those of *default* if no scope fits. *name* is the file's path, for messages."""

    name: str
    default: tuple[Requirement, ...]
    scopes: Mapping[str, tuple[Requirement, ...]]

    @property
    def accepts_anything(self) -> bool:
        """Whether no requirement can refuse an image."""
        return all(each.accepts_anything for each in (*self.default, *(r for s in self.scopes.values() for r in s)))

    def requirements(self, repository: RepositoryName, digest: str) -> tuple[Requirement, ...]:
        """Return the requirements for the manifest *digest* of *repository*."""
        for scope in _scopes_of(repository, digest):
            if scope in self.scopes:
                return self.scopes[scope]
        return self.default


def parse_policy(content: bytes, name: str) -> Policy:
    """Return the policy *content* of the file *name*. Raises InvalidOption, naming file and place."""
    try:
        document = parse_document(content, error=BadContent, limit=_MOST_BYTES)
        _only(document, ("default", "transports"))
        if not document.has("default"):
            document.fail("default", "is missing")
        default = tuple(_requirements(document, "default"))
        transports = document.child("transports")
        docker = None if transports is None else transports.child("docker")
        scopes = {} if docker is None else {scope: _in_scope(docker, scope) for scope in docker.values}
    except (BadContent, TooLarge) as error:
        raise InvalidOption(
            f"the policy {name} cannot be read, so that no image may be shown: {error}; with --policy none, all are"
        ) from None
    return Policy(name, default, scopes)


def _in_scope(docker: Fields, scope: str) -> tuple[Requirement, ...]:
    if "@" not in scope and ":" in scope.rpartition("/")[2] and "/" in scope:
        docker.fail(scope, "is a tag, and regfs judges images by their digests: name the repository")
    return tuple(_requirements(docker, scope))


def _scopes_of(repository: RepositoryName, digest: str) -> Iterator[str]:
    name = str(repository)
    yield f"{name}@{digest}"
    while name:
        yield name
        name = name.rpartition("/")[0]
    labels = repository.registry.split(".")
    for first in range(1, len(labels)):
        yield ".".join(("*", *labels[first:]))
    yield ""


def _requirements(parent: Fields, key: str) -> Iterator[Requirement]:
    entries = list(parent.children(key, limit=_MOST_ENTRIES))
    if not entries:
        parent.fail(key, "has no requirement")
    yield from map(_requirement, entries)


def _requirement(fields: Fields) -> Requirement:
    kind = fields.text("type")
    if kind == _SIGSTORE:
        return _sigstore(fields)
    if kind == _GPG:
        return Requirement("a signature by GPG is wanted (signedBy), which regfs does not verify")
    _only(fields, ("type",))
    if kind == _REJECT:
        return Requirement("it is rejected")
    if kind != _ACCEPT:
        fields.fail("type", f"{kind[:100]!r} is not known")
    return Requirement()


def _sigstore(fields: Fields) -> Requirement:
    _only(fields, ("type", "signedIdentity", "fulcio", "pki", *_KEYS, *_LOG_KEYS))
    if sum(fields.has(key) for key in (*_KEYS, "fulcio", "pki")) != 1:
        fields.fail("type", "sigstoreSigned needs exactly one source of keys")
    kind, repository = _identity(fields)
    if fields.has("pki"):
        return Requirement("a certificate is wanted (sigstoreSigned, pki), which regfs does not verify")
    if kind not in ("matchRepository", "exactRepository"):
        return Requirement(
            f"its signature has to name a tag (signedIdentity {kind}), and cosign's name none: write matchRepository"
        )
    keys, log, fulcio = _pem(fields, _KEYS), _pem(fields, _LOG_KEYS), fields.child("fulcio")
    if fulcio is None:
        return Requirement("", keys, None, log, repository)
    if not log.is_given:
        fields.fail("fulcio", "needs the key of Rekor's log: rekorPublicKeyPath or rekorPublicKeyData")
    return Requirement("", keys, _fulcio(fulcio), log, repository)


def _identity(fields: Fields) -> tuple[str, str]:
    """Check the policy's signedIdentity, and return the repository that it names, "" if none."""
    identity = fields.child("signedIdentity")
    kind = "matchRepoDigestOrExact" if identity is None else identity.text("type")
    if identity is None:
        return kind, ""
    if kind not in _IDENTITIES:
        fields.fail("signedIdentity", f"{kind[:100]!r} is not known")
    _only(identity, ("type", *_IDENTITIES[kind]))
    repository = identity.text("dockerRepository")
    if kind == "exactRepository" and not repository:
        fields.fail("signedIdentity", "has no dockerRepository")
    return kind, repository


def _fulcio(fields: Fields) -> Fulcio:
    _only(fields, _FULCIO)
    authorities = _pem(fields, _AUTHORITIES)
    if not authorities.is_given:
        fields.fail("caPath", "is missing, and so is caData")
    for key in ("oidcIssuer", "subjectEmail"):
        if not fields.text(key):
            fields.fail(key, "is missing")
    return Fulcio(authorities, fields.text("oidcIssuer"), fields.text("subjectEmail"))


def _pem(fields: Fields, names: tuple[str, str, str, str]) -> Pem:
    """Return the PEM at the keys *names* (a path, paths, data, datas), of which at most one may be given."""
    given = [key for key in names if key and fields.has(key)]
    if len(given) > 1:
        fields.fail(given[1], f"cannot stand beside {given[0]}")
    if not given:
        return Pem()
    (key,) = given
    values = (fields.text(key),) if key in (names[0], names[2]) else fields.texts(key, limit=_MOST_ENTRIES)
    if not values or not all(values):
        fields.fail(key, "is empty")
    if key in names[:2]:
        return Pem(paths=values)
    return Pem(texts=tuple(_decoded(fields, key, text) for text in values))


def is_repository(named: str, repository: RepositoryName, wanted: str) -> bool:
    """Tell whether *named*, from a signature, is the repository *wanted*, or *repository* if *wanted* is ""."""
    try:
        found = parse_reference(named).repository
        return found == (parse_reference(wanted).repository if wanted else repository)
    except InvalidName:
        return False


def _decoded(fields: Fields, key: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        fields.fail(key, "is not base64")


def _only(fields: Fields, keys: tuple[str, ...]) -> None:
    for key in fields.values:
        if key not in keys:
            fields.fail(key[:100], "is not known")
