"""An image written elsewhere: into a directory."""
