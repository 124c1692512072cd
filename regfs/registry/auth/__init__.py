"""Logging in: what a 401 leads to.

authorization.py  one request's authorization, from the first attempt to the verdict: how a 401 is handled
known_demands.py  what each registry demanded, remembered for an hour
tokens.py         tokens from the server that a challenge names
api_roots.py      the root of an API, `/v2/`: its scheme, and what it demands
demand.py         the challenges that regfs can meet, and the scopes that it asks for
challenge.py      the WWW-Authenticate header
"""
