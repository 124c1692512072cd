"""A mount that outlives its daemon: a small process holds it and starts the next one; mount/kernel/kept/ has the state.

holder_process  a process of 4 MB: keeps connection and state, decides which daemon serves and when the next one starts
daemon_side     the daemon starts the holder, hears from it, starts another where that has died
systemd_fd_store  systemd as the holder, for a unit with FileDescriptorStoreMax=2
successor       the process that takes a mount over
resume          serves a mount that another daemon has served before
mount_description  options and mount point, as the next daemon reads them
"""
