"""
OpenSC's configuration for one card: OPENSC_CONF, made anew by each process that loads the module for one reader.

It is a file without a name, which only its process can open. OpenSC has no other way to be told what matters here:

- every other reader is ignored: OpenSC would connect to all cards it finds, and a card that another process is busy with
  keeps a start waiting for seconds (measured: 4.3 s);
- a PIN is not kept: OpenSC would send it again by itself, after an error of the card or for the next signature, and each
  time is a try that nobody granted;
- the card is reset when the process leaves it, as far as it leaves in order.

Which driver OpenSC takes for the card stays the operator's: OPENSC_DRIVER in the token's environment. An operator who
gives OPENSC_CONF there writes all of it.
"""

import os
from collections.abc import Iterable

_VARIABLE = "OPENSC_CONF"


def configuration(reader: str, readers: Iterable[str]) -> str:
    """
    For a module that is to see `reader` alone, of all that there are. OpenSC ignores each reader whose name *contains* a
    listed one, so a name that is part of ours is not listed; nor is one that its parser would stumble over.
    """
    others = [f'"{name}"' for name in readers if name not in reader and not set('"\\\n') & set(name)]
    return f"""\
app default {{
  {f"ignored_readers = {', '.join(others)};" if others else ""}
  reader_driver pcsc {{
    connect_exclusive = true;
    disconnect_action = reset;
  }}
  framework pkcs15 {{
    use_pin_caching = false;
  }}
}}
"""


def configure(reader: str, readers: Iterable[str]) -> None:
    """For the modules that this process loads from now on."""
    if _VARIABLE in os.environ:
        return
    fd = os.memfd_create("opensc.conf")
    os.write(fd, configuration(reader, readers).encode())
    os.environ[_VARIABLE] = f"/proc/self/fd/{fd}"
