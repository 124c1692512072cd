"""python -m regfs."""

from regfs.cli import main

main()
