"""What a policy needs of the package cryptography, and what is said where it is missing or old."""

from __future__ import annotations

import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from regfs.errors import BadConfiguration
from regfs.images.judging.keys import load_certificates, load_keys
from regfs.model.signature_policy import Pem


@pytest.fixture
def keys() -> Pem:
    public = generate_private_key(SECP256R1()).public_key()
    return Pem(texts=(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),))


def test_keys_need_no_new_cryptography_and_certificates_do(keys: Pem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12 has version 38, Debian 13 version 43."""
    monkeypatch.setitem(sys.modules, "cryptography.x509.verification", None)
    assert len(load_keys(keys, "policy.json")) == 1
    with pytest.raises(BadConfiguration, match=r"certificates, and cryptography 45.*pip install 'regfs\[verify\]'"):
        load_certificates(keys, "policy.json")


def test_without_cryptography_both_ways_to_get_it_are_named(keys: Pem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    with pytest.raises(BadConfiguration, match=r"pip install 'regfs\[verify\]'.*apt install python3-cryptography"):
        load_keys(keys, "policy.json")
