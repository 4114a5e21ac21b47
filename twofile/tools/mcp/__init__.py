"""The Model Context Protocol, both ways: servers of others as drivers of the kernel, and twofile's drivers and models
as a server.

Files, from the ground: `configuration` (which servers), `definition` and `pins` (what they offer, and what of it a
person approved), `wire` (what a server may send), `local` and `remote` (over pipes, over HTTP), `connection` (one
server's life), `client` (all of them, as drivers); `server` and `generate` (the other way).

What comes from a server is bounded and never trusted: a server that crashes, hangs, floods or lies makes the call an
error. A local server is a program of the person's choice and runs as they do: it is not sandboxed.
"""
