"""Applies a containers-policy.json to an image: rules.py. Used by app/policy.py."""
