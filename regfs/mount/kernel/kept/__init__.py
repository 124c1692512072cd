"""The state that outlives a daemon: what the kernel relies on, in memory that another process holds.

state_file       the memory, its layout, and what holds for the mount as a whole
pending          requests that were read and not answered yet
open_files       the files that the kernel has open, with their backing ids
node_records     the node ids that the kernel knows

Nothing is written back at the end of a daemon: every record is whole at each instant, so that the next daemon finds a
right state however the last one ended. Counts err upwards: a look-up counted twice only keeps a node a bit longer, a
missing one would make a working directory stale.
"""
