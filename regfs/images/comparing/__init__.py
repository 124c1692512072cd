"""Two images compared. Used by `regfs diff`, by the library and by tree/.

contents.py            the differences of their files, with all bytes compared that must be; kept in the cache
image_differences.py   these with layer and command, and what differs of the configs
text.py                both as lines
trees.py               what was added, removed and changed, as trees
"""
