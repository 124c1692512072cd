"""The two drivers that show a file system to the kernel: the only code that knows FUSE. In reading order:

filesystem       what both drivers ask of the tree that they show
kernel/          the driver on /dev/fuse: regfs's own session with the kernel, for Linux
fusepy/          the driver on libfuse 2, by the fusepy library, where the other cannot run
errnos           the one table from error to errno
handles          numbers for what is open
options          options of a mount, as mount(2), fusermount3 and libfuse take them
device           /dev/fuse, opened or refused with the remedy
checks           what is checked before a mount
mountpoint       what is mounted where, whether it is dead, and how it is unmounted
busy_poll        polls for the next request for a moment before sleeping
cpu_latency      --low-latency: keeps cores awake during bursts
in_use           which directories of a mount are in use, for tags that move
daemon_answers   reads `.regfs/` of mounts without waiting for a daemon that hangs
"""
