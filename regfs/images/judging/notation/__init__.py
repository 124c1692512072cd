"""What a trust policy of notation wants of an image: rules.py goes by it. Used by app/policy.py."""
