"""What refers to an image: gathered.py finds it, contents.py decodes it, attached.py reads it for image layouts.

Used by the tree, the library, the verbs and export/.
"""
