"""What refers to an image: gathered.py finds it in all places, contents.py says what is in it. Used by the tree."""
