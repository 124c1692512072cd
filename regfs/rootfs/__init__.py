"""The union of an image's layers: the merge, and the trees that it and the layers are shown as. Pure but for SQLite."""
