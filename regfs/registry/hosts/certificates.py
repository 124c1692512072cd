"""Certificates: the directories that Docker, podman and containerd keep them in, and the system's authorities.

Used by endpoints.py and hosts_toml.py. In a registry's directory, `*.crt` are authorities, added to the system's, and
`NAME.cert` with `NAME.key` is a client certificate for it. Sources: containers-certs.d(5); Docker, "Verify repository
client with certificates". Thread rule: any thread; reads directories, opens no connection.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from regfs.registry.http.trust import Authorities

log = logging.getLogger(__name__)

# Debian and Alpine, Fedora and RHEL, SUSE, old RHEL, FreeBSD.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
# What update-ca-certificates and c_rehash call a certificate: the hash of its subject, and a number where several have
# that hash. OpenSSL asks for 0, 1, 2, … until one is not there.
_HASHED = re.compile(r"([0-9a-f]{8})\.(0|[1-9][0-9]*)")
_PEM = re.compile(rb"-----BEGIN ([^-]+)-----([^-]*)-----END")


class Certificates(NamedTuple):
    """Authorities beside the system's, and a client certificate with its key (None: in the same file)."""

    ca_files: tuple[str, ...] = ()
    client_pair: tuple[str, str | None] | None = None

    def with_more(self, other: Certificates) -> Certificates:
        """Return both together; this one's client certificate has precedence."""
        more = tuple(file for file in other.ca_files if file not in self.ca_files)
        return Certificates(self.ca_files + more, self.client_pair or other.client_pair)


NO_CERTIFICATES = Certificates()


def certificates_in(directory: Path) -> Certificates:
    """Return the certificates in *directory*; none if it does not exist or may not be read."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            log.debug("%s cannot be looked at: %s", directory, error)
        return Certificates()
    authorities = tuple(str(directory / name) for name in names if name.endswith(".crt"))
    pairs = [_pair(directory / name) for name in names if name.endswith(".cert")]
    for name in names:
        if name.endswith(".key") and f"{name.removesuffix('.key')}.cert" not in names:
            log.warning("%s has no certificate %s.cert beside it", directory / name, name.removesuffix(".key"))
    return Certificates(authorities, next((pair for pair in pairs if pair is not None), None))


def _pair(certificate: Path) -> tuple[str, str | None] | None:
    key = certificate.with_suffix(".key")
    try:
        if key.is_file():
            return str(certificate), str(key)
        if b"PRIVATE KEY-----" in certificate.read_bytes():
            return str(certificate), None
    except OSError as error:
        log.debug("%s cannot be read: %s", certificate, error)
        return None
    log.warning("%s has no key %s beside it; certificates of authorities are named .crt", certificate, key.name)
    return None


def system_authorities(environment: Mapping[str, str]) -> Authorities:
    """Return the authorities that *environment* names, else the system's, else certifi's list.

    SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's variables; REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE are what users of
    requests and curl set already.
    """
    file, directory = environment.get("SSL_CERT_FILE"), environment.get("SSL_CERT_DIR")
    if file or directory:
        return _by_name(Authorities(file or None, directory or None))
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := environment.get(variable):
            return Authorities(None, path) if os.path.isdir(path) else _by_name(Authorities(path, None))
    built_in = ssl.get_default_verify_paths()
    candidates = (built_in.openssl_cafile, *_BUNDLES)
    found = next((path for path in candidates if os.path.isfile(path)), None)
    if found is not None:
        return _by_name(Authorities(found, None))
    hashed = Path(built_in.openssl_capath)
    if hashed.is_dir() and any(hashed.iterdir()):
        return Authorities(None, str(hashed))
    import certifi  # only where the system has nothing: loading it costs time

    return Authorities(certifi.where(), None)


def _by_name(authorities: Authorities) -> Authorities:
    """Return *authorities* without their file if its directory has the same ones by their hashed names.

    OpenSSL takes 40 ms to load the usual list from a file. In a directory it looks up those that it needs.
    """
    if authorities.file is None:
        return authorities
    directory = os.path.dirname(os.path.realpath(authorities.file))
    if authorities.directory and os.path.realpath(authorities.directory) != directory:
        return authorities
    try:
        # Where others may write, they could name an authority of theirs after this look.
        is_ours = _is_closed_to_others(directory)
        is_same = is_ours and _is_hashed(Path(authorities.file).read_bytes(), directory)
    except OSError as error:
        log.debug("%s cannot be looked at: %s", directory, error)
        is_same = False
    return Authorities(None, directory) if is_same else authorities


def _is_closed_to_others(directory: str) -> bool:
    """Tell whether only root or this user can change what is in *directory*. Raises OSError."""
    status = os.stat(directory)
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def _is_hashed(bundle: bytes, directory: str) -> bool:
    """Tell whether OpenSSL finds in *directory* the certificates of *bundle*, all of them and no other. Raises OSError.

    One of the two may have been edited, or a file named that has a part of the system's list.
    """
    blocks = _PEM.findall(bundle)
    if not blocks or len(blocks) != bundle.count(b"-----BEGIN"):
        return False
    wanted = {_of_pem(*block) for block in blocks}
    names = set(os.listdir(directory))
    found = set()
    for hashed in filter(None, map(_HASHED.fullmatch, names)):
        with open(f"{directory}/{hashed[0]}", "rb", buffering=0) as file:  # there are 150: a Path would take its time
            blocks = _PEM.findall(file.read())
        is_reached = all(f"{hashed[1]}.{number}" in names for number in range(int(hashed[2])))
        if len(blocks) != 1 or not is_reached:
            return False
        found.add(_of_pem(*blocks[0]))
    return found == wanted


def _of_pem(kind: bytes, text: bytes) -> tuple[bytes, bytes]:
    """Return the content of a block without its line breaks."""
    return kind, text.translate(None, b"\r\n ")
