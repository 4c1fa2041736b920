"""Opens connections: by address, by name, to this machine, and to local and abstract sockets."""

import socket

for kind, address in (
    (socket.AF_INET, ("1.1.1.1", 53)),
    (socket.AF_INET, ("127.0.0.1", PORT)),  # noqa: F821  (where a server listens)
    (socket.AF_UNIX, "/var/run/docker.sock"),
    (socket.AF_UNIX, "\0zoo-listener"),
):
    try:
        socket.socket(kind).connect(address)
        print("CANARY connected", address)
    except OSError as error:
        print(type(error).__name__)
try:
    print("CANARY", socket.getaddrinfo("example.org", 80))
except OSError as error:
    print(type(error).__name__)
