"""Artifacts: what a manifest names that is no layer of an image, as the files and directories that it stands for.

producers.py knows who writes what (ORAS, ModelPack, Docker models, KitOps, Helm, …) and finds a name for each blob;
layout.py puts these names into one directory, however hostile they are. Used by images/artifact_files.py, which the
tree and the verbs ask. Pure; any thread.
"""
