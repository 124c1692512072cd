"""Reads the trust store of notation: certificates by type and name, in the directory beside the trust policy.

    ~/.config/notation/trustpolicy.json
    ~/.config/notation/truststore/x509/ca/acme/*.pem *.crt *.cer     tsa/ and signingAuthority/ beside ca/

The specification calls the directory `trust-store`, the tool `truststore`: the first one that exists is read. Symbolic
links are refused, as the specification requires. Used by rules.py. Thread rule: a function.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from regfs.errors import BadConfiguration
from regfs.images.judging.keys import load_certificates, read_file
from regfs.model.signature_policy import Pem

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_DIRECTORIES = ("truststore", "trust-store")
_SUFFIXES = (".pem", ".crt", ".cer")
_MOST_FILES = 1000
_PEM = b"-----BEGIN"


def load_store(policy: str, kind: str, name: str) -> tuple[Certificate, ...]:
    """Load the certificates of the store *name* of type *kind*, for the policy file *policy*.

    Raises BadConfiguration if there are none, one cannot be read, or the package cryptography is missing.
    """
    base = Path(policy).parent
    place = next((each for each in _DIRECTORIES if (base / each).is_dir()), _DIRECTORIES[0])
    directory = base / place / "x509" / kind / name
    if directory.is_symlink():
        raise BadConfiguration(f"the trust store {directory} is a symbolic link, which notation allows for none")
    certificates: list[Certificate] = []
    for path in _files(directory):
        certificates += _certificates(path)
    if not certificates:
        raise BadConfiguration(f"the trust store {directory} has no certificate")
    return tuple(certificates)


def _files(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            found = [Path(each.path) for each in entries if each.name.endswith(_SUFFIXES)]
    except OSError as error:
        raise BadConfiguration(f"the trust store {directory} cannot be read: {error.strerror}") from None
    if len(found) > _MOST_FILES:
        raise BadConfiguration(f"the trust store {directory} has more than {_MOST_FILES} files")
    return sorted(found)


def _certificates(path: Path) -> tuple[Certificate, ...]:
    from cryptography.x509 import load_der_x509_certificate

    if path.is_symlink():
        raise BadConfiguration(f"the certificate {path} is a symbolic link, which notation allows for none")
    content = read_file(str(path), "certificate")
    if _PEM in content:
        return load_certificates(Pem(paths=(str(path),)), str(path))
    try:
        return (load_der_x509_certificate(content),)
    except ValueError as error:
        raise BadConfiguration(f"{path} is not a certificate: {error}") from None
