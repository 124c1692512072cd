"""Whether a policy lets an image be shown: judge.py decides, keys.py verifies signatures. Used by images/image.py."""
