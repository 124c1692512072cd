"""A timestamp authority: the openssl command with a key of its own, whose answers tell the time of now.

authority = TimestampAuthority(directory)
token = authority.token(signature)    # TimeStampToken of RFC 3161
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography.x509 import Certificate, load_pem_x509_certificate

_CONFIG = """
[req]
distinguished_name = name
prompt = no
x509_extensions = authority
[name]
CN = own timestamps
[signer_name]
CN = own timestamp signer
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[signer]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[tsa]
default_tsa = own
[own]
serial = {directory}/serial
signer_cert = {directory}/signer.pem
signer_key = {directory}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class TimestampAuthority:
    """An authority that keeps its files in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        (directory / "serial").write_text("01\n")
        (directory / "cnf").write_text(_CONFIG.format(directory=directory))
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "cnf")
        self._run("req", "-x509", *new, "-keyout", "root.key", "-out", "root.pem", "-days", "30")
        self._run("req", *new, "-keyout", "signer.key", "-out", "signer.csr", "-subj", "/CN=own timestamp signer")
        self._run(
            "x509", "-req", "-in", "signer.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days",
            "30", "-extfile", "cnf", "-extensions", "signer", "-out", "signer.pem",
        )  # fmt: skip

    @property
    def root(self) -> Certificate:
        """The certificate of the authority."""
        return load_pem_x509_certificate((self._directory / "root.pem").read_bytes())

    @property
    def chain(self) -> tuple[Certificate, Certificate]:
        """The certificates of the signer and of the authority."""
        return load_pem_x509_certificate((self._directory / "signer.pem").read_bytes()), self.root

    def token(self, message: bytes) -> bytes:
        """Return a timestamp of *message*, made now."""
        (self._directory / "message").write_bytes(message)
        self._run("ts", "-query", "-data", "message", "-sha256", "-cert", "-out", "query")
        self._run("ts", "-reply", "-config", "cnf", "-queryfile", "query", "-token_out", "-out", "token")
        return (self._directory / "token").read_bytes()

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=self._directory)


def answer_with(token: bytes) -> bytes:
    """Return the answer of an authority that has granted *token*: TimeStampResp of RFC 3161, section 2.4.2."""
    content = bytes.fromhex("3003020100") + token
    return b"\x30\x82" + len(content).to_bytes(2) + content
