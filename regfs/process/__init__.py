"""This process.

- user.py: its user: home, configuration, root or not
- clocks.py: times that a suspended machine and a clock that is set do not spoil
- umask.py: the permissions that new files lack
- descriptors.py: the limit of open files
- regular_files.py: reading a file that another program wrote
- removal.py: removing directories of any depth
- subordinate_ids.py: the users and groups that it may be in a user namespace, by /etc/subuid
- syscalls.py: calls that Python has no names for
- threads.py: starting threads and processes where the system may refuse
- waiting/: how threads wait: under a deadline, for work that is done once, or for a slot
"""
