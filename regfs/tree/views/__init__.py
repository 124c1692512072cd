"""The computed directories and files of an image: files/, oci/, referrers/, `history` and the like; one module each.
Used by tree/image.py, tree/layers.py and tree/namespace.py (.diff/)."""
