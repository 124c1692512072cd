"""Whether a policy lets an image be shown: judge.py decides, signers.py verifies. Used by images/image.py."""
