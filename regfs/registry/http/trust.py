"""What TLS trusts: the authorities of every host, and what one host is trusted with beside them.

Used by hosts/, which finds them in files, and by tls.py, which hands them to OpenSSL. Values; any thread.
"""

from __future__ import annotations

from typing import NamedTuple


class Authorities(NamedTuple):
    """The authorities that may sign every host's certificate: a file, a directory of hashed names, or both."""

    file: str | None
    directory: str | None


class Tls(NamedTuple):
    """What one host is trusted with: further authorities, a client certificate for it, whether to verify."""

    ca_files: tuple[str, ...] = ()
    client_pair: tuple[str, str | None] | None = None
    verify: bool = True


# The system's authorities, no client certificate.
SYSTEM_TRUST = Tls()
