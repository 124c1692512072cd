"""Reports about an image, as text and numbers. Used by tree/image.py, tree/layers.py and verbs/.

history.py         the steps of its build: layer, sizes, command
packages.py        what dpkg, apk or rpm has installed
wasted.py          the files that upper layers replaced or deleted
layer_totals.py    how many files a layer has, and how many bytes
"""
