"""What an image's directory shows beside its documents, blobs and layers; one view a module. Used by tree/image.py."""
