"""An image in another form.

- unpack.py: its merged files in a directory
- erofs/: the names of its merged files as an EROFS image, which the kernel mounts
"""
