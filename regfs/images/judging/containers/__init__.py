"""What a containers-policy.json wants of an image: rules.py goes by it. Used by app/policy.py."""
