"""`regfs run`: runs a program in an image's files, isolated by namespaces.

Three processes beside the program; when one of them dies, so do those below it, and the kernel takes their mounts away:

    regfs run        supervisor.py: finds the image, serves it where FUSE shows it, passes signals and the terminal on
    └ entered        namespaces.py: new namespaces; waits
      └ process 1    first_process.py: builds the root directory, reaps, gives the program its signals
        └ program

All mounts are in the new mount namespace, so none is left behind, whatever process is killed.

- plan.py: the request, and the command, environment and user that follow; pure
- id_maps.py: the id maps of the new user namespace
- namespaces.py, first_process.py, supervisor.py: the processes
- root_directory.py: overlay, /proc, /dev, volumes
- program.py: user, capabilities, exec
- terminal.py: a terminal of the program's own
- channel.py: messages between supervisor and process 1

Why neither bubblewrap nor unshare(1): both may be missing; Debian 12's bubblewrap (0.8) makes no overlay; neither
forwards signals or changes to a user of the image; and the image has to be mounted inside the namespaces anyway. The
system calls are the same.
"""
