"""Names: registries, repositories, tags, references.

A RepositoryName is always valid, so it is safe in a URL. Sources: distribution-spec, "Pulling manifests" (repository
and tag grammar); distribution/reference, normalize.go and regexp.go (which first component is a host). All patterns are
ASCII and used with fullmatch: `$` would accept a trailing newline, `\\w` any Unicode letter. Pure; any thread.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple

from regfs.errors import InvalidName, NameTooLong
from regfs.model.dates import moment, moment_text
from regfs.model.digest import Digest, is_short_digest
from regfs.model.userinfo import reference_without_userinfo

DOCKER_HUB = "docker.io"
ONE_IMAGE = "regfs#"
"""The prefix of the source of a mount of one image, in /proc/mounts; the image's name follows."""
DEFAULT_TAG = "latest"
OFFICIAL = "library"
"""The namespace of Docker Hub's official images: `debian` is `library/debian` there."""
_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})
NAME_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_COMPONENT_RE = re.compile(_COMPONENT, re.ASCII)
_PATH_RE = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG_RE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_PATH_IN_IMAGE_RE = re.compile(r"([^:]+:[^:/]+)[:/]/?(.*)")  # debian:12/etc, debian:12:etc
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST_RE = re.compile(rf"((?:{_LABEL}(?:\.{_LABEL})*)|\[[0-9a-fA-F:]+\])(?::([0-9]{{1,5}}))?", re.ASCII)
_LABEL_MAX, _PORT_MAX = 63, 65535  # RFC 1035 section 2.3.4; no resolver and no socket goes beyond
FIRST_PORT_OF_REGISTRIES = 1024
"""`name:number` without a dot is an image and its tag below it: no registry in a local network uses such a port."""
# Cosign's and the referrers tag schema's tags: about another manifest, not versions of the repository.
_ATTACHMENT_RE = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{64,128})(?:\.(?:sig|att|sbom))?", re.ASCII)
# The form of an image's id. Docker reads such a name as an id, so it cannot name an official image.
_IDENTIFIER_RE = re.compile(r"[a-f0-9]{64}", re.ASCII)


def is_repository_component(name: str) -> bool:
    """Tell whether *name* may be one component of a repository's path."""
    return len(name) <= NAME_MAX and _COMPONENT_RE.fullmatch(name) is not None


def is_tag(name: str) -> bool:
    """Tell whether *name* may be a tag."""
    return _TAG_RE.fullmatch(name) is not None


def is_attachment_tag(tag: str) -> bool:
    """Tell whether *tag* names signatures, attestations or referrers of another manifest."""
    return _ATTACHMENT_RE.fullmatch(tag) is not None


def is_registry(name: str) -> bool:
    """Tell whether *name*, the first component of a reference, is a registry by Docker's rule.

    A registry is `localhost` or has a dot, a colon or an upper-case letter, and is a host with an optional port.
    """
    looks_like_a_host = name == "localhost" or "." in name or ":" in name or name != name.lower()
    return looks_like_a_host and _is_host(name)


def registry_named(name: str) -> str | None:
    """Return the canonical name of the registry *name*, the first component of a path; None if it is not a registry.

    A port may be written `host+5000`: host names have no `+`, and a path with a colon cannot be given to `podman -v`,
    to overlay's lowerdir= or in PYTHONPATH.
    """
    host, plus, port = name.partition("+")
    spelled = f"{host}:{port}" if plus else name
    return canonical_registry(spelled) if is_registry(spelled) else None


def path_in_image(registry: str, path: str) -> str:
    """Return a hint where *registry* and *path* are rather an image and a path in it: `debian:12` and `etc/passwd`."""
    host, colon, port = registry.partition(":")
    if not colon or "." in host or host == "localhost" or not port.isdecimal() or int(port) >= FIRST_PORT_OF_REGISTRIES:
        return ""
    return f"; a path in the image {registry} is written {registry}:/{path[:150]}"


def canonical_registry(host: str) -> str:
    """Return the canonical form of the registry name *host*. Raises InvalidName if it is not a host."""
    if not _is_host(host):
        _refuse_userinfo(host)
        raise InvalidName(f"{host[:300]!r} is not a registry: a host name with an optional port is needed")
    lower = host.lower()
    return DOCKER_HUB if lower in _HUB_ALIASES else lower


def _refuse_userinfo(text: str) -> None:
    """Raise InvalidName if *text* has a user name or a password, which other messages would repeat."""
    shown = reference_without_userinfo(text)
    if shown is not None:
        raise InvalidName(
            f"{shown[:300]!r} has a user name or a password: leave them out; regfs uses those of podman login and "
            "docker login"
        )


def _is_host(name: str) -> bool:
    match = _HOST_RE.fullmatch(name)
    if match is None or len(name) > NAME_MAX:
        return False
    host, port = match[1], match[2]
    if port is not None and not 0 < int(port) <= _PORT_MAX:
        return False
    if host.startswith("["):
        return _is_ipv6(host[1:-1])
    return all(len(label) <= _LABEL_MAX for label in host.split("."))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """A repository of a registry: *registry* is `host[:port]`, *path* is `library/debian`.

    The path of Docker Hub's official images has `library/`, as in URLs and token scopes. Raises InvalidName.
    """

    registry: str
    path: str

    def __post_init__(self) -> None:
        if self.registry != canonical_registry(self.registry):
            raise InvalidName(f"{self.registry!r} is not a registry's canonical name")
        if not _PATH_RE.fullmatch(self.path):
            raise InvalidName(f"{self.path[:300]!r} is not a repository{_spelling(self.path)}")
        if any(len(component) > NAME_MAX for component in self.path.split("/")):
            raise NameTooLong(f"{self.path[:300]!r} has a component of more than {NAME_MAX} bytes")

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"


class Version(NamedTuple):
    """What follows the repository in a reference. If there are a tag and a digest, the digest decides.

    A short digest is the first 12 or more hex digits of one; the known digests of the repository resolve it. *at*, in
    seconds since 1970, asks for what the tag pointed to then.
    """

    tag: str | None
    digest: Digest | None = None
    short_digest: str | None = None
    at: float | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = self.digest or self.short_digest or (None if self.at is None else moment_text(self.at))
        return tag if digest is None else f"{tag}@{digest}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository and, in it, a tag or a digest (if both are given, the digest decides). See Version."""

    repository: RepositoryName
    tag: str | None
    digest: Digest | None
    short_digest: str | None = None
    at: float | None = None

    def __post_init__(self) -> None:
        if self.tag is not None and not is_tag(self.tag):
            raise InvalidName(f"{self.tag[:300]!r} is not a tag")

    def __str__(self) -> str:
        return f"{self.repository}{self.version}"

    @property
    def version(self) -> Version:
        """What follows the repository."""
        return Version(self.tag, self.digest, self.short_digest, self.at)

    @property
    def directory(self) -> str:
        """The name of its directory within the repository's directory of a mount, without a colon."""
        if self.digest is not None:
            return f"@{self.digest.algorithm}-{self.digest.encoded}"
        if self.short_digest is not None:
            return f"@{self.short_digest}"
        tag = self.tag or DEFAULT_TAG
        return tag if self.at is None else f"{tag}@{moment_text(self.at).replace(':', '')}"


def _spelling(path: str) -> str:
    """Return a hint how to write *path*, which is not a valid repository; '' if there is none."""
    if (match := _PATH_IN_IMAGE_RE.fullmatch(path)) is not None:
        written = f"{match[1][:150]}:/{match[2][:150]}"
        if written == path:
            return f"; name the image alone: {match[1][:300]}"
        return f"; a path in the image is written {written}"
    if path != path.lower() and _PATH_RE.fullmatch(path.lower()):
        return f": it has no upper-case letters; write {path.lower()[:300]}"
    return ""


def _no_tag(name: str, tag: str) -> str:
    """Return the reason why *tag*, which follows *name*, is not a tag."""
    if not tag:
        return f"the tag of {name[:300]}: is missing; without the colon it is {DEFAULT_TAG}"
    return f"{tag[:300]!r} is not a tag{_spelling(f'{name}:{tag}')}"


def repository_at(registry: str, path: str) -> RepositoryName:
    """Return the repository *path* of the canonical *registry*, as Docker reads it. Raises InvalidName."""
    is_official = registry == DOCKER_HUB and "/" not in path
    return RepositoryName(registry, f"{OFFICIAL}/{path}" if is_official else path)


def parse_repository(text: str, *, default_registry: str = DOCKER_HUB) -> RepositoryName:
    """Return the repository that *text* names: `debian`, `ghcr.io/owner/app`. Raises InvalidName."""
    first, slash, rest = text.partition("/")
    registry = registry_named(first) if slash else None
    if registry is not None:
        try:
            return repository_at(registry, rest)
        except InvalidName as error:
            raise type(error)(f"{error}{path_in_image(registry, rest)}") from None
    registry = canonical_registry(default_registry)
    if registry == DOCKER_HUB and _IDENTIFIER_RE.fullmatch(text):
        raise InvalidName(f"{text!r} is an image's identifier; write library/{text[:8]}… for a repository of that name")
    return repository_at(registry, text)


def parse_version(text: str) -> tuple[str, Version]:
    """Split the last component of a reference into a name, and the tag and digest that follow it.

    `debian:12`, `debian@sha256:<hex>`, `debian@sha256-<hex>`, `debian@440129be81b2`, `debian:12@2026-11-01T00:00Z`.
    Raises InvalidName.
    """
    _refuse_userinfo(text)
    rest, separator, digest_text = text.partition("@")
    name, colon, tag = rest.partition(":")
    if colon and not is_tag(tag):
        raise InvalidName(_no_tag(name, tag))
    kept_tag = tag if colon else None
    if not separator:
        return name, Version(kept_tag)
    if is_short_digest(digest_text):
        return name, Version(kept_tag, short_digest=digest_text)
    if (at := moment(digest_text)) is not None:
        return name, Version(kept_tag, at=at)
    return name, Version(kept_tag, Digest.parse_name(digest_text))


def parse_reference(text: str, *, default_registry: str = DOCKER_HUB) -> Reference:
    """Parse a pasted reference: `[docker://][registry/]repository[:tag][@digest]`, by default `latest`.

    A time may stand in place of the digest. Raises InvalidName.
    """
    if not text:
        raise InvalidName("an empty name is not an image")
    _refuse_userinfo(text)
    for scheme in ("http://", "https://"):
        if text.startswith(scheme):
            raise InvalidName(f"{text[:300]} is not an image: leave out {scheme}")
    head, slash, last = text.removeprefix("docker://").rpartition("/")
    name, version = parse_version(last)
    repository = parse_repository(f"{head}{slash}{name}", default_registry=default_registry)
    if version.digest is None and version.short_digest is None:
        version = version._replace(tag=version.tag or DEFAULT_TAG)
    return Reference(repository, *version)
