"""What the manual page says beside options and verbs: prose, by section. README has the short form of it.

A paragraph ends with an empty line; one that begins with `- ` is a list. Words in backquotes are bold. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from regfs.cli.json_output import json_notes

NOTES: dict[str, str] = {
    "NAMES AND FILES OF A MOUNT": """\
Below `.diff/A..B/changed/`, a directory whose attributes differ has `a` and `b`, its two versions, beside the changes
in it. Where a change is itself called `a` or `b`, the two are `a~` and `b~`.

`history`, `wasted`, `packages`, `summary`, `real-size` and `files` have the size 0, as files in /proc do: some are
computed from the layers, which no listing fetches. Reading `history` fetches no layer; it has the real sizes of the
layers that are cached.

Each file and directory below `rootfs/` has the extended attributes `user.regfs.layer`, `user.regfs.digest` (of that
layer's blob) and `user.regfs.created_by`. They can be read by name (`getfattr -n`) and are in no list of attributes, so
that copies stay without them. Linux lets links, devices and pipes have none; `regfs which` tells their layers too.

A tag and its content have the date of the image once its config has been read, and 1970 before (`ls -lt`).
`PLATFORM-MISSING.txt` or `PLATFORM-DIFFERS.txt` in an image says that it is not built for your platform.

An artifact has in `files/` what its own tool would write: what ORAS pushed by its titles, models of ModelPack, Docker
and KitOps by their paths, a Helm chart, sigstore's bundles, `module.wasm`; the name of any other blob is its digest.
`ls -l` reads the manifest (for KitOps, and charts by an old Helm, the config too) and no blob. A tar is always a
directory, with the name that the manifest gives: a single file that KitOps packed is inside a directory of its own
name. A name that is absolute, has `..`, or is taken gets another; `.regfs/errors` says which. `rootfs/` is in images
alone.

`referrers/` of an image has what refers to it, wherever a tool has stored that: the referrers API or its fallback
tag, cosign's tags `sha256-….sig`, `.att` and `.sbom`, BuildKit's entries in the index, and what refers to these in
turn. A tag shows what refers to its index and to the manifest for your platform, `manifests/linux-arm64/` what refers
to that manifest.

- `by-type/TYPE/sha256:…/`: each manifest, a directory like the image's
- `signatures/`, `attestations/`, `sbom/`: `1.json` is what was signed (of an SBOM in a statement, the predicate
  alone); `1.raw` the exact bytes; `1.info` the signer, the time and the image, as the blob names them, and whether
  they were verified as the `--policy` wants, or why not. An SBOM that is a blob of its own is shown as it is

`ls referrers/` sends no request. A list of referrers costs one request an hour, with or without the API;
`signatures/`, `attestations/` and `sbom/` cost one more for the manifest of each. Blobs are fetched when they are
read, up to 40 MiB. Where the registry does not answer, they fail; they are never empty by mistake. Decoded files have
the size 0.

A name that does not exist is ENOENT. `[ -d … ]`, `cd` and `mkdir` cost one to three small requests, and the answer is
remembered for 2 seconds up to `--tag-ttl`. Where the registry cannot tell whether a name exists (a namespace of
Docker Hub or GHCR, a refusal), the name opens.

`@` opens any name without asking the registry: at the root, in a registry and in a repository. It leads to hidden
names:

- `library/hello-world/@/nested/`: a repository `nested` beside a tag `nested`
- `localhost:5000/@/org/`: what a pull-through cache has not cached yet
- `registry.gitlab.com/group/project/@/my/image/`: a repository two levels below another, in a registry without a
  catalog
""",
    "WHAT IS FETCHED WHEN": """\
- Listing tags and reading what is beside `rootfs/`: manifests and configs alone.
- The first look into `rootfs/` of a plain image: all its layers, once. After that the kernel gets names and files
  from the cache.
- The same of an image in eStargz or zstd:chunked, or with a SOCI index: the tables of contents of its layers, some 60
  bytes a file. Reading a file fetches the chunks that it is in, and more of them ahead where it is read in order. An
  eStargz or zstd:chunked layer whose manifest has no digest of its table is treated as a plain one. All other layers
  in these formats never show eStargz's own files (`stargz.index.json` and the landmarks), whether the registry serves
  ranges or not.
- The first file of such an image that is opened: what its recorded start read, in that order, each part while no read
  waits. `regfs record IMAGE -- COMMAND` records one; with `--push` other machines find it, for one request an hour
  and image. A record is a hint: a wrong one costs 256 MiB at most.
- The program that such an image's config names is opened, and the cache has no record: its interpreter and the
  libraries that it is linked with, before they are read one by one.
- Where the whole of such a layer is read anyway (`regfs prefetch`, `regfs index`), its table is compared with its
  archive, and `.regfs/errors` says what differs. The mount shows what the table says.
- Where a registry serves no ranges, or a table cannot be used, the layer is fetched whole, and `.regfs/errors` says
  so.
- Without a network, what is in the cache is served; reading the rest is EHOSTUNREACH.
""",
    "EVICTING BY RM": """\
`.regfs/cache/` has a file for each image (`images/`), layer, merged table and blob (`layers/`, `tables/`, `blobs/`) of
the cache. `rm` of one evicts it, as `regfs cache rm` of its path does: of an image what no other image needs. Its room
is free then, and it is fetched again when it is next read. What a process has open, the kernel has mounted or a pin
keeps stays as it is: EBUSY, with the reason in `.regfs/errors`. What only the kernel remembers (names, small files in
its page cache) is not open. The four directories stay, so that `rm -r` of one empties it and fails at the end. `rm -r`
of a mount point empties them, too: unmount first. Only the user who mounts may do that; root too, where others are let
in.
""",
    "A TAG THAT MOVES": """\
A tag may move while something runs in its image. As long as a process works or is rooted below the tag's directory,
or something is mounted there, the directory keeps showing that image, also when the tag is deleted or refused; the
attribute `user.regfs.newer` (`getfattr -d`) names the image that the tag points to by then. The daemon does not see,
and does not count, processes of other PID namespaces, nor those of other users unless it runs as root.
""",
    "SIGNATURE POLICIES": """\
A policy says which images may be shown. An image is judged by its digest before anything of it is shown, cached or
not; a refusal is EACCES, with the reason in `.regfs/errors`, and disturbs no process in an image that was allowed. An
index vouches for the manifests that it names, an image not for the files of one that refers to it. No service of
sigstore or of an authority is asked. Policy, keys and roots are read at the start or when they are first needed; a
later change holds for the next mount and after `regfs restart`; until then an image that was allowed stays allowed.

- policy.json(5) of podman and skopeo: `insecureAcceptAnything`, `reject`, `sigstoreSigned` by scope, with keys,
  Fulcio's certificates and Rekor's log (`pip install 'regfs[verify]'`; Debian's python3-cryptography verifies keys);
  cosign's tags, with `signedIdentity` `matchRepository` or `exactRepository`, and its bundles, which name the digest
  alone. `signedBy` (GPG), `pki` and scopes with a tag are refused by name; a file that has a key unknown to regfs is
  refused as a whole.
- With `--trusted-root FILE` (`pip install 'regfs[sigstore]'`) bundles are verified as cosign does it, with
  timestamps, certificate logs and the log's proof. Only those authorities of the file count that the policy names
  too.
- notation's `--policy ~/.config/notation/trustpolicy.json`, with the `truststore` beside it: signatures in JWS, by
  its levels. Where revocation is enforced, a certificate with a CRL or OCSP is refused, since only a request could
  tell whether it was revoked; timestamps need `regfs[sigstore]`; COSE envelopes are refused by name.
""",
    "WHEN THE DAEMON CRASHES": """\
When the daemon crashes, is killed, or is upgraded (`regfs restart`), the mount stays, and so do open files, working
directories, roots and running programs in it: a small process (5 MB) holds it and starts the next daemon at once.
Requests that come meanwhile wait for a second or less. When ten daemons in a row have ended at once, that process
gives up: the mount is dead then, and the log says so. SIGTERM and an unmount end the daemon and that process; `regfs
status` counts the restarts.
""",
    "THE TWO DRIVERS": """\
- needs: `kernel`: Linux; `fusermount3` unless root; `fusepy`: libfuse 2; any system that has it
- what a request names: `kernel`: an inode; `fusepy`: a path
- how long the kernel trusts a name: `kernel`: below a digest for ever, a tag for its `--tag-ttl`; `fusepy`: one
  second, whatever it is
- when a tag moves: `kernel`: open files and directories stay in the old image, new look-ups see the new one;
  `fusepy`: the same for open files; names are always looked up in what the tag shows
- listing a directory: `kernel`: entries come with their attributes; `fusepy`: one more request for each entry
- while the layers of a `rootfs` are fetched: `kernel`: names beside it answer at once; `fusepy`: names beside it wait
- large files that are cached: `kernel`: read by the kernel itself, as root from Linux 6.9 on; `fusepy`: through regfs

Both show the same tree, byte for byte; one suite of tests runs against both.
""",
    "OUTPUT AS JSON": json_notes(),
    "LIMITS": """\
- All other writing is EROFS, but by regfs and not by the kernel: the mount is shown as `rw` (statvfs(3),
  /proc/mounts). With `--allow-other` or `--default-permissions`, access(2) answers by owners and modes alone, so that
  root hears that it may write (`test -w`, `find -writable`); and writes that the modes forbid are EACCES or EPERM.
  With `-o ro` the kernel itself refuses all writes, as it does in a mount of one image: `rm` in `.regfs/cache/` is
  EROFS then, and `regfs cache rm` evicts. With `--driver fusepy`, renameat2(2) with flags is EINVAL, and O_TMPFILE
  EOPNOTSUPP. Setting a file's flags (chattr) is ENOTTY.
- fusermount3 unmounts nothing where /etc/mtab is missing (debootstrap minbase): `ln -s /proc/self/mounts /etc/mtab`.
- `regfs run` as an ordinary user, before Linux 6.6: a directory of the image that is deleted cannot be made again in
  memory (EIO); `--keep DIR` on a disk can.
- Ubuntu forbids `unshare -r` by default, and `regfs run` for ordinary users with it (`sysctl -w
  kernel.apparmor_restrict_unprivileged_userns=0` allows both); its fusermount3 mounts below $HOME, /mnt, /media and
  /tmp only.
- An overlay over an overlay over a rootfs needs `--no-passthrough`: the kernel allows two levels of stacking, and
  reading cached large files by itself takes one of them.
- Schema 1 manifests, encrypted layers and layers that are EROFS images are refused (EOPNOTSUPP), and their type is
  named.
- The layers of images for Windows are not shown as files (EOPNOTSUPP in `rootfs/` and `layers/N/tree/`; exit code 7 of
  verbs that need files): Windows alone can merge them. `layers/N/blob` is the tar of each, `history`, `oci/` and
  `regfs inspect` and `export` work. Non-distributable layers in an image for Linux are shown if the registry has them.
- Digests by BLAKE3 need the package `blake3`: `pipx install '.[blake3]'`.
- `packages` reads rpm's database where it is SQLite. Of an older one it only says that it is there: copy its
  directory and run `rpm --dbpath COPY -qa`, since rpm writes to what it reads.
- After each answer the daemon polls for 200 microseconds before it sleeps: it uses one core for that long after the
  last request of a burst. On virtual machines, where an idle core takes long to wake, `--low-latency` makes cold
  walks three to six times as fast if nothing else keeps the cores busy: bursts of requests then hold
  /dev/cpu_dma_latency, and no core of the machine sleeps deeply.
- Inode numbers have 53 bits; each image has numbers of its own, which stay the same for as long as the cache does.
  With `--inode32` they have 32, and two images share them: GNU `diff` and `tar` then take files of two images for the
  same one, so do not give them two images in one run.
- `updatedb` and desktop indexers walk every mount: add `fuse.regfs` to PRUNEFS in /etc/updatedb.conf.
""",
}


def notes(text: Callable[[str], str]) -> Iterator[str]:
    """Yield the sections as roff; *text* escapes what roff reads as commands."""
    for title, body in NOTES.items():
        yield f".SH {title}"
        for paragraph in body.strip().split("\n\n"):
            if not paragraph.startswith("- "):
                yield from (".PP", _bold(text(" ".join(paragraph.split()))))
                continue
            for item in re.split(r"\n(?=- )", paragraph):
                yield from (".IP \\(bu 2", _bold(text(" ".join(item.removeprefix("- ").split()))))


def _bold(escaped: str) -> str:
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped)
