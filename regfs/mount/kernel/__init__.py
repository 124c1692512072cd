"""The driver on /dev/fuse: regfs's own session with the kernel, without libfuse. In reading order:

session          one mount, from mount(2) to its end: who answers which request, and with which errno
mount            mounting with mount(2), or with fusermount3
negotiation      INIT: version and flags
loop             reading requests, one after the other
requests         opcode -> tree: what each request is answered
directory        answers to READDIR and READDIRPLUS
abi              the protocol in bytes
state            handles, backing files and pages that the kernel has of this session
kept/            what of it outlives the daemon
left_requests    what another daemon has read and not answered
failures         what a request that fails is answered
passthrough      files that the kernel reads by itself
page_cache       bytes that the kernel is given before it asks
prefetch         what is read and made before it is asked for
notifications    messages to the kernel that answer no request
waiting_requests requests that wait for the network, with deadline and INTERRUPT
thread_pool      their threads
loop_watch       another reading thread, if the cache's disk hangs below the first
"""
