"""Where a registry is asked: mirrors, certificates, and the configuration files that say so.

endpoints.py        the endpoints of a registry in the order of trial
hosts_toml.py       containerd's hosts.toml
registries_conf.py  podman's registries.conf
toml_files.py       TOML files: typed access, and messages with the file and the line
certificates.py     directories of certificates, and the system's authorities
"""
