"""Registries over HTTP: from a repository's name to verified bytes.

In reading order, top down; imports point down:

    client.py          what the rest of regfs asks; loads the parts at the first request
    client_parts.py    builds them
    manifests.py       tags to descriptors, manifests and indexes
    blobs.py           blobs, verified while they stream; ranges
    parallel.py        one big blob over several connections
    listing.py         tags of a repository, repositories of a registry
    referrers.py       what refers to a manifest
    push.py            blobs and manifests written to a repository
    docker_hub.py      Docker Hub's own API, which lists a namespace
    endpoint_calls.py  one call: the endpoints in their order, address, headers, authorization
    auth/              logging in: what a 401 leads to
    hosts/             where a registry is asked: mirrors, certificates, configuration files
    http/              requests and answers: retries, redirects, connections, TLS
    credentials/       user names, passwords and tokens from files and helpers
"""
