"""
The commands of `paraph`, a file each.

gRPC's fork handlers are off, and gRPC reads that when it is imported. A fork waits in them, with the GIL, for gRPC's
threads; a TLS handshake on one of those waits for the GIL to ask for certificates: a lane that starts beside a new
connection would stop the daemon for good. In the child they crash about one in a hundred that start while calls are in
work (grpcio 1.85.1), before its exec. Our children are exec'ed and need no handlers.
"""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
