"""The app: what the user asked for, and everything that a process builds from it, once.

    config.py        Config, one frozen value, and the table of options that it is made from
    quantities.py    sizes, times and shares as users write them
    composition.py   Config → registry client → store → images → tree
    control.py       what `.regfs/` shows in every tree
    policy.py        the judge that decides by the user's signature policy which images are shown
    owners.py        other owners of the files than those in the image: --owner me, --subuid
    upkeep.py        keeps the cache in order: remains of crashes, limits, rot

Used by the daemon, the verbs, the library and tests.
"""
