"""Reports about an image, computed as text and numbers. Used by tree/image.py and tree/layers.py.

history.py         the steps of its build: layer, sizes, command
packages.py        what dpkg or apk has installed
wasted.py          the files that upper layers replaced or deleted
layer_totals.py    how many files a layer has, and how many bytes
"""
