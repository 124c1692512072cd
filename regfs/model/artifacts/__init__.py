"""Artifacts: the blobs of a manifest that are not layers of an image, as the files and directories that they stand for.

producers.py recognises the tool that made an artifact (ORAS, ModelPack, Docker models, KitOps, Helm, …) and names each
blob as that tool does; layout.py arranges these names, which may be hostile, in one directory. Used by
images/artifact_files.py. Pure; any thread.
"""
