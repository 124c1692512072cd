"""Decides by the user's policy whether an image may be shown. judge.py is used by images/image.py."""
