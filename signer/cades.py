"""
CAdES B-B over any file: beside it (detached) or round it (enveloping). ETSI EN 319 122-1.

The file is only hashed, never parsed; enveloping writes it between the two halves of the CMS.
"""

import os
import shutil
from typing import BinaryIO

from signer.cms import Attributes, Template

_COPY_BYTES = 1024 * 1024


def finish(
    template: Template,
    attributes: Attributes,
    signature: bytes,
    content: BinaryIO,
    output: BinaryIO,
    *,
    enveloping: bool,
) -> None:
    """Write the CMS to `output`; `content` is read from its beginning when it goes inside."""
    if not enveloping:
        output.write(template.detached(attributes, signature))
        return
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    head, tail = template.enveloping(attributes, signature, size)
    output.write(head)
    shutil.copyfileobj(content, output, _COPY_BYTES)
    output.write(tail)
