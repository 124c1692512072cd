"""Applies a trust policy of notation to an image: rules.py. Used by app/policy.py."""
