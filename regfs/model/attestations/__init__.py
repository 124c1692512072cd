"""What refers to an image: which layer of a manifest is a signature, an attestation or an SBOM, and what is in it.

kinds.py finds them by media types and annotations, documents.py decodes one: DSSE envelopes, sigstore bundles, in-toto
statements, cosign's and Notary's payloads. signatures.py has what a verification needs. encodings.py, members.py
and certificate.py read what these are made of. Nothing here verifies a signature. Used by images/. Pure; any thread.
"""
