"""Where a registry is asked: mirrors, certificates, and the configuration files that say so."""
