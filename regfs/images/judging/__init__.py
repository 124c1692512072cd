"""Whether a policy lets an image be shown: judge.py asks containers/ or notation/. Used by images/image.py."""
