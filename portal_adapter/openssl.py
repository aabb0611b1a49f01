"""
Imported before anything that has OpenSSL in it: which groups TLS 1.3 may use (ASVS 5.0, 11.2.3).

Python's ssl has no call for that before 3.15, and OpenSSL reads its own file once, when it is first used. An operator who
names a file of his own (OPENSSL_CONF) is left to it.
"""

import os
from pathlib import Path

os.environ.setdefault("OPENSSL_CONF", str(Path(__file__).with_suffix(".cnf")))
