"""A program in an image's files, isolated: `regfs run`.

Three processes beside the program; when one of them dies, so do those below it, and the kernel takes their mounts away:

    regfs run        supervisor.py: finds the image, serves it where FUSE shows it, passes signals and the terminal on
    └ entered        entering.py: new namespaces; waits
      └ process 1    first_process.py: builds the root directory, reaps, gives the program its signals
        └ program

All mounts are made in the new mount namespace, so that none is left behind, whatever is killed.

- plan.py: what is asked for, and what is to be run; pure
- id_maps.py: who the users of a new user namespace are outside of it
- entering.py, first_process.py, supervisor.py: the processes
- root_directory.py: overlay, /proc, /dev, volumes
- program.py: user, capabilities, exec
- terminal.py: a terminal of the program's own
- channel.py: what supervisor and process 1 tell each other

Why neither bubblewrap nor unshare(1): both may be missing; Debian 12's bubblewrap (0.8) makes no overlay, none passes
signals on or changes to a user of the image, and the image has to be mounted from inside of the namespaces in any case.
The system calls are the same.
"""
