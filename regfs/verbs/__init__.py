"""The work of the verbs, without parsing or printing: cli/verbs/ has a module of the same name for that.

- umount.py, status.py, refresh.py, path.py: about mounts
- unpack.py, prefetch.py, cache.py: about images and the cache
- image_argument.py: IMAGE on the command line; image.py: the image that it names
- progress.py: bars and lines about what goes on
"""
