"""A mount that outlives its daemon: a small process holds it and starts the next one; mount/kernel/kept/ has the state.

holder       a process of 4 MB: the connection, the state, and which daemon serves
holding      the daemon's side: starts the holder, hears from it, starts another where that has died
fd_store     systemd as the holder, for a unit with FileDescriptorStoreMax=2
successor    the process that takes a mount over
resume       serves a mount that another daemon has served before
asked        what was asked for, as the next daemon reads it: options, mount point
"""
