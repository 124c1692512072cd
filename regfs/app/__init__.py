"""The app: what the user asked for, and everything that a process builds from it, once.

    config.py        Config, one frozen value, and the table of options that it is made from
    composition.py   Config → registry client → store → images → tree
    policy.py        the policy of signatures, by which images may be shown

Used by the daemon, the verbs, the library and tests.
"""
