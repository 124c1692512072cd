"""Requests and answers: retries, redirects, connections, TLS. It knows nothing of registries but their error documents.

retrying.py          sends a request until its answer can be used
retry_policy.py      how often, and after which wait
transfer_failures.py how often one transfer may break off and go on
host_health.py       which hosts are down or want a pause
redirects.py         where a redirect may lead, and what goes along
transport.py         one request to one URL; the only module that knows requests and urllib3
host_slots.py        how many requests one host gets at a time
connecting.py        connections to hosts with several addresses
kept_connections.py  which kept connections are used again
sockets.py           sockets that keep the thread's deadline
tls.py               contexts for TLS, and what its failures mean
trust.py             what TLS trusts
messages.py          requests and answers as values
error_answers.py     what an error answer means
redaction.py         secrets taken out of what servers say
ranges.py            Range and Content-Range
content_encoding.py  bodies that a server compressed though it was asked not to
links.py             the Link header: the next page
addresses.py         which hosts are this machine or a private network
"""
