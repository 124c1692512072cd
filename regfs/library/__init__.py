"""`import regfs`: images as Python objects, without a mount and without FUSE.

    client.py              Client: registries through one cache, with one set of options; opens images
    image.py               Image and its layers
    change.py              Change: one path that differs between two images
    pure_path.py           PurePath: the name of a path, with the methods of pathlib.PurePath
    path.py                Path: a file or directory of the tree, with the methods of pathlib.Path that read
    path_glob.py           the paths that match a glob pattern
    path_resolver.py       turns paths into nodes of the tree: look-ups, symbolic links, a cache of both
    streams.py             an open file as a raw stream of Python's io
    failures.py            makes each RegfsError an OSError too
    fsspec_filesystem.py   registries for fsspec: regfs:// paths
    universal_path.py      registries for universal_pathlib: UPath("regfs://…")

regfs/__init__.py lists what is exported. Paths are the same as in a mount, so that a program can use either. A library
prints nothing, reads no configuration file, and changes nothing of its process. Used by programs and by verbs/. Thread
rule: any thread may use any object; a wait for a registry ends after the client's timeout_s.
"""
