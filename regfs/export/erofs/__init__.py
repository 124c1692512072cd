"""EROFS images: the names of an image, with the layers' data files as devices. The kernel serves them without a daemon.

- layout.py: the byte layout
- xattrs.py: extended attributes as inodes have them, and those that inodes share
- names.py: the names, read from the merged table and the layers' indexes
- image.py: writes the image
- cached.py: keeps it in the cache, and checks it
- mounting.py: mounts it
"""
