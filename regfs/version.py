"""The version of regfs: kept in a module of its own, because importlib.metadata costs 35 ms at start."""

VERSION = "0.1.0"
