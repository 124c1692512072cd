"""Logging in: what a registry demands, and the tokens that it accepts."""
