"""Local copies: verified blobs, file contents, indexes of layers and images, and what references pointed to."""
