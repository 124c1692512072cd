"""What the mount looks like: directories, files and links, asked by node. No FUSE, no HTTP."""
