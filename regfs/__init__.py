"""regfs shows OCI and Docker registries as directories.

App, and which way imports go: always down, and never between rooms of one row (tests/test_layering.py).

    cli          arguments and environment to a Config; the only printing and exiting
    verbs        what the verbs of the command line do
    daemon       the life of a mount: start, log, signals, end
    app | export the composition root: builds all below from a Config | an image written into a directory
    mount        two drivers that know FUSE: kernel/ (our own session on /dev/fuse) and fusepy/; config beside it
    tree         what the mount looks like: nodes with look-up, children, attributes, open. No FUSE, no HTTP
    images       repositories and images: where registry, store, layers and rootfs meet; workers/ for heavy work
    rootfs       the union of an image's layers as one table
    layers | registry | store
                 files inside one blob | HTTP | local copies. They do not know each other: functions are passed in
    model        values: digests, names, manifests, platforms, attributes. Parse and print, no I/O
    telemetry | waiting
                 what was counted and what failed | deadlines and single flights
    process      this process: its user, threads and descriptors
    errors       the tree of errors

How a read() gets its bytes, for `library/debian/12/rootfs/etc/os-release`:

1. The kernel has resolved the path one name at a time. Each answer was a node id: image, deciding layer, row in that
   layer's index. So opening it is one row's look-up, and nothing had to be remembered in between.
2. `tree` takes the row's content: small files are a span of the layer's pack, those of 256 KiB and more are objects,
   files of their own. `store` opens it; `mount` answers from there, or hands the object to the kernel (passthrough).
3. Where the layer has not been seen before, the look-up of `rootfs` itself started its pass: `registry` receives the
   blob, `layers` inflates and parses it, `store` writes objects, pack and index; the digest of the blob and of the tar
   are compared at the end, and only then do names get their content. Layers of one image pass side by side; who waits
   meanwhile waits under a deadline (`waiting`) and on one download, however many they are.
4. `rootfs` has merged the layers' indexes into one table by then; the next mount opens that and asks nobody.

Errors of every package are subclasses of RegfsError; mount/errnos.py alone turns them into errnos.
"""

# Written here because importlib.metadata costs 35 ms at start.
__version__ = "0.1.0"
