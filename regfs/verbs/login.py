"""`regfs login` and `regfs logout`: a login is tried at its registry, and stored where docker looks for it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from regfs.app.composition import build
from regfs.app.config import Config, parse_registry
from regfs.errors import AccessDenied, InvalidOption
from regfs.process.waiting.deadline import Deadline, under
from regfs.registry.credentials.credential import VARIABLE
from regfs.registry.credentials.lookup import Credentials, server_name
from regfs.registry.credentials.stored_logins import StoredLogins

# The user did not set the variable through which the login is tried.
_OUR_VARIABLE_RE = re.compile(rf"; (it refuses )?the credentials .*from {VARIABLE}.*")


class LoggedIn(NamedTuple):
    """Where the login is stored, and notes for the user."""

    place: str
    notes: tuple[str, ...]


def login(registry: str, username: str, secret: str, *, config: Config, environment: Mapping[str, str]) -> LoggedIn:
    """Try the login at *registry*, and store it. Blocks on the network for --timeout.

    Raises AccessDenied where the registry refuses it, the errors of a request, and BadConfiguration where it cannot be
    stored. After an error nothing has changed.
    """
    if not username or not secret:
        raise InvalidOption("a user name and a password are needed, and neither may be empty")
    if ":" in username:
        raise InvalidOption("a user name has no colon")
    host = parse_registry(registry)
    is_tried = _try(host, username, secret, config=config, environment=environment)
    place = StoredLogins(environment).store(host, username, secret)
    notes = [] if is_tried else [f"{host} asked for no password, so that this one is stored untried"]
    return LoggedIn(place, (*notes, *_notes(host, username, environment)))


def logout(registry: str, *, environment: Mapping[str, str]) -> bool:
    """Remove the login for *registry*; return whether there was one. Raises BadConfiguration."""
    return StoredLogins(environment).remove(parse_registry(registry))


def _try(host: str, username: str, secret: str, *, config: Config, environment: Mapping[str, str]) -> bool:
    """Try the login; return whether the registry wanted one."""
    auth = b64encode(f"{username}:{secret}".encode()).decode()
    only = json.dumps({"auths": {server_name(host): {"auth": auth}}})  # read first: credentials/lookup.py
    with (
        closing(build(config, {**environment, VARIABLE: only})) as app,
        under(Deadline(config.timeout_s, is_users=True)),
    ):
        try:
            return app.registry.listing.check_access(host)
        except AccessDenied as refusal:
            answer = _OUR_VARIABLE_RE.sub("", str(refusal)).removeprefix(f"{host}: ")
            raise AccessDenied(
                f"{host} refuses the user {username!r} with the password given ({answer}); check both: some registries "
                "take an access token in place of the password"
            ) from refusal


def _notes(host: str, username: str, environment: Mapping[str, str]) -> list[str]:
    """Return a note where the new login will not be used, because another source that is read first has one."""
    with closing(Credentials(environment)) as credentials:
        found = credentials.for_host(host)
        if found is not None and found.username != username:
            return [f"{found.source} has another login for {host}, which is found first"]
        return credentials.faults
