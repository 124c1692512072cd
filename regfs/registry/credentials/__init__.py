"""Credentials: user names, passwords and tokens, from files and helpers.

lookup.py      which credential goes to which registry, and the order of the sources
files.py       Docker's config.json, containers' auth.json, the old ~/.dockercfg
helpers.py     programs docker-credential-NAME
stored_logins.py  logins that regfs stores, for `regfs login`
credential.py  one credential
"""
