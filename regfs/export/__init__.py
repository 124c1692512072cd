"""Images in other forms: unpacked, as an EROFS mount, as the root of a program.

- unpack.py: its merged files in a directory
- container/: a program that runs in its merged files, isolated
- overlay.py: the writable side over them
- archive/: an OCI image layout as a tar archive, written and read
- erofs/: the names of its merged files as an EROFS image, which the kernel mounts
"""
