"""Compares two images. Used by `regfs diff`, the library and tree/ (.diff/).

contents.py            the differences of their files, decided by a comparison of bytes if needed; kept in the cache
image_differences.py   these differences with layer and command, and those of the configs
text.py                differences as lines of text
trees.py               what was added, removed and changed, as trees
"""
