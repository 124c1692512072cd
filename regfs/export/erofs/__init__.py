"""An EROFS image of an image's names, whose devices are the layers' data files: the kernel serves it alone.

- layout.py: the byte layout
- xattrs.py: extended attributes as inodes have them, and those that inodes share
- names.py: the names, read from the merged table and the layers' indexes
- image.py: writes the image
- cached.py: keeps it in the cache, and checks it
- mounting.py: mounts it
"""
