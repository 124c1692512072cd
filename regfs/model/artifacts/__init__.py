"""Artifacts: what a manifest names that is no layer of an image, as the files and directories that it stands for.

producers.py recognises the tool that made an artifact (ORAS, ModelPack, Docker models, KitOps, Helm, …) and names each
blob as that tool does; layout.py arranges these names, which may be hostile, in one directory. Used by
images/artifact_files.py, which the tree and the verbs ask. Pure; any thread.
"""
