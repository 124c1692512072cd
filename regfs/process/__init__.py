"""This process: its user, its threads, its file descriptors."""
