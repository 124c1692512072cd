"""The driver on /dev/fuse: regfs's own session with the kernel, without libfuse. In reading order:

session          one mount, from mount(2) to its end: which thread answers a request, and with which errno
mount            mounting with mount(2), or with fusermount3
negotiation      INIT: version and flags
loop             reading requests, one after the other
requests         opcode -> tree: what each request is answered
answers          written to the kernel, or undone
directory        answers to READDIR and READDIRPLUS
abi              the protocol in bytes
state            handles, backing files and pages that the kernel has of this session
kept/            the part of the state that outlives the daemon
unanswered_requests  those that an earlier daemon has read and not answered
failures         the answer to a request that fails, and its report
passthrough      files that the kernel reads by itself
page_cache       bytes that the kernel gets before it asks
prefetch         directory answers and small files, prepared before they are asked for
notifications    messages to the kernel that answer no request
waiting_requests requests that wait for the network, with deadline and INTERRUPT
thread_pool      the threads of waiting requests
loop_watch       another reading thread, if the cache's disk hangs below the first
"""
