"""TLS with one host: contexts for a Tls value, and what a failure means.

Used by transport.py. Thread rule: a context is shared by all connections that have the same trust.
"""

from __future__ import annotations

import functools
import ssl
import time
from collections.abc import Callable

from regfs.errors import BadConfiguration, RegfsError, RegistryUnavailable
from regfs.model.dates import moment_text
from regfs.registry.http.messages import Request
from regfs.registry.http.sockets import NotTls, Pace, TlsFailed, tls_context_for
from regfs.registry.http.trust import Authorities, Tls

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED. Source: OpenSSL's x509_vfy.h.
_NOT_NOW = (9, 10)
# What OpenSSL says when the port answers a TLS greeting in plain text.
_PLAIN_TEXT = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})


def tls_context(tls: Tls, authorities: Authorities, pace: Pace) -> ssl.SSLContext:
    """Return the context that trusts the system's *authorities* and those of *tls*, and has its client certificate.

    Raises BadConfiguration if a file of them cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _use(authorities.file or authorities.directory, lambda: context.load_verify_locations(*authorities))
    for file in tls.ca_files:
        _use(file, functools.partial(context.load_verify_locations, file))
    if tls.client_pair is not None:
        certificate, key = tls.client_pair
        what = f"{certificate} with the key {key}" if key else certificate
        _use(what, functools.partial(context.load_cert_chain, certificate, key))
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return tls_context_for(context, pace)


def tls_failure(error: ssl.SSLError, request: Request) -> RegfsError:
    """Return regfs's error for *error*, which ended the connection for *request*; it names the remedy."""
    origin = request.origin
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOT_NOW:
        return TlsFailed(
            f"{origin}: its certificate is not valid now: {error.verify_message}; the clock of this machine says "
            f"{moment_text(time.time())}: if it is wrong, set it"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailed(
            f"{origin}: its certificate is not trusted: {error.verify_message}; "
            f"put its authority into /etc/docker/certs.d/{origin}/ca.crt, or name the host with --insecure-registry"
        )
    if error.reason in _PLAIN_TEXT:
        return NotTls(f"{origin}: it does not speak TLS; name it with --insecure-registry if it is meant to be plain")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return RegistryUnavailable(f"{origin}: the connection was closed in the middle of TLS")
    if "CERTIFICATE_REQUIRED" in (error.reason or "") or "HANDSHAKE_FAILURE" in (error.reason or ""):
        return TlsFailed(f"{origin}: TLS failed ({error.reason}); it may want a client certificate")
    return TlsFailed(f"{origin}: TLS failed ({error.reason or 'unknown reason'})")


def _use(what: str | None, load: Callable[[], object]) -> None:
    """Load certificates. Raises BadConfiguration, which says that it is *what* cannot be used."""
    try:
        load()
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise BadConfiguration(f"{what} cannot be used for TLS: {reason}; correct or remove it") from error
