"""The life of a mount: start, log, signals, end; and what it says of itself."""
