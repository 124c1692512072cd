"""User names, passwords and tokens: the files and helper programs that keep them."""
