"""The HTTP side: the registry client, its authentication, its hosts."""
