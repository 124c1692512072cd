"""Verifies sigstore bundles with the package sigstore, by a trusted_root.json alone.

The file has certificate authorities, logs of certificates (CT), logs of signatures (Rekor) and timestamp authorities,
with the times for which they are valid; `cosign trusted-root create` and sigstore's TUF repository make it. The package
needs only the file and a bundle, and makes no request to sigstore's services. The policy still says who must have
signed, and which of the authorities may vouch for that. Used by signers.py. Thread rule: any thread.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regfs.errors import BadConfiguration, BadContent
from regfs.images.judging.keys import der_of, read_file
from regfs.model.signature_policy import Fulcio
from regfs.model.strict_json import parse_document

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier

_AUTHORITIES = "certificateAuthorities"


def load_verifier(path: str, authorities: Sequence[Certificate]) -> Verifier:
    """Return a verifier by the trusted root *path*, limited to authorities that are among *authorities*.

    Raises BadConfiguration, also if the package is missing.
    """
    try:
        from sigstore.errors import Error
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier
        from sigstore_models.trustroot.v1 import TrustedRoot as Document
    except ImportError:
        raise BadConfiguration(
            f"the trusted root {path} needs the package sigstore, which is not there: pip install 'regfs[sigstore]'"
        ) from None
    document = _document(path)
    listed = document.get(_AUTHORITIES)
    named = [each for each in listed if _is_among(each, authorities)] if isinstance(listed, list) else []
    if not named:
        raise BadConfiguration(f"the trusted root {path} has none of the certificates that the policy has for Fulcio")
    try:
        root = TrustedRoot(Document.from_json(json.dumps({**document, _AUTHORITIES: named})))
        return Verifier(trusted_root=root)
    except (Error, ValueError) as error:
        raise BadConfiguration(f"{path} is not a trusted_root.json: {str(error)[:500]}") from None


def check_bundle(verifier: Verifier, content: bytes, wanted: Fulcio) -> tuple[Certificate, str, bytes]:
    """Return the certificate that signed the bundle *content*, the payload's type, and the payload.

    Raises BadContent if it does not verify.
    """
    from sigstore.errors import Error
    from sigstore.models import Bundle
    from sigstore.verify.policy import Identity

    try:
        bundle = Bundle.from_json(content)
        payload_type, payload = verifier.verify_dsse(bundle, Identity(identity=wanted.email, issuer=wanted.issuer))
    except Error as error:
        raise BadContent(f"it does not verify by the trusted root: {' '.join(str(error).split())[:500]}") from None
    except Exception as error:  # for invalid bytes, the package raises errors of pydantic and of DER parsers
        raise BadContent(f"its bundle cannot be read: {type(error).__name__}: {str(error)[:200]}") from None
    return bundle.signing_certificate, payload_type, payload


def _document(path: str) -> dict[str, object]:
    try:
        return parse_document(read_file(path, "trusted root"), error=BadContent).values
    except BadContent as error:
        raise BadConfiguration(f"{path} is not a trusted_root.json: {error}") from None


def _is_among(authority: Any, authorities: Sequence[Certificate]) -> bool:
    wanted = {base64.b64encode(der_of(each)).decode() for each in authorities}
    try:
        return any(each["rawBytes"] in wanted for each in authority["certChain"]["certificates"])
    except (KeyError, TypeError):
        return False
