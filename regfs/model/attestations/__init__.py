"""Signatures, attestations and SBOMs: finds them among the layers of a manifest, and decodes them.

kinds.py finds them by media types and annotations, documents.py decodes one: DSSE envelopes, sigstore bundles, in-toto
statements, cosign's and Notary's payloads. signatures.py and notary.py extract what a verification needs. encodings.py,
json_members.py and certificate.py decode the parts. Nothing here verifies a signature. Used by images/. Pure; any
thread.
"""
