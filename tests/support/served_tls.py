"""TLS for servers of tests, with certificates of tests/support/registry.py."""

from __future__ import annotations

import ssl

from tests.support.registry import Certificates


def tls_of(certificates: Certificates, *, clients: bool = False) -> ssl.SSLContext:
    """Return what a FaultServer takes as `tls`; with *clients* it insists on a certificate of the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.authority)
    return context
