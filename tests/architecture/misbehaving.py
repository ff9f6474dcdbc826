"""A module that does on import what no module may, so that the probe is known to see it."""

import socket

import faust

with socket.socket() as _listener:
    _listener.bind(("127.0.0.1", 0))

app = faust.App("misbehaving")
