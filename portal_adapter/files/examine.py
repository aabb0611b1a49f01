"""An upload, looked into from outside to inside: its size, its kind, what is in it, malware (ATT-09, ATT-10)."""

import logging
from pathlib import Path

from portal_adapter.files import pdf, picture, sniff
from portal_adapter.files.blobs import Blobs
from portal_adapter.files.examined import INFECTED, Examined
from portal_adapter.files.scan import scan
from portal_adapter.language import msgid
from portal_adapter.refusal import FieldError, Refusal
from portal_adapter.settings import Settings

log = logging.getLogger("portal.files")


def examine(path: Path, settings: Settings, blobs: Blobs) -> Examined:
    """
    Of a file in `blobs.incoming`. Takes seconds. Raises `Refusal` `too-large`, `bad-type`, `rejected-content` (malware is
    set aside), `signer-unavailable`.
    """
    limits = settings.limits
    size = path.stat().st_size
    if size > limits.document_bytes:
        raise too_large(size, limits.document_bytes)
    media_type = sniff.media_type(path)
    if media_type == sniff.PDF:
        pdf.check(path, settings.daemon.profile)
    else:
        picture.check(path, limits.image_pixels)
    verdict = scan(path, settings.scan)
    if verdict.state == INFECTED:
        kept = blobs.set_aside(path)
        log.warning("an upload is infected (%s): %s", verdict.note, f"quarantined as {kept}" if kept else "not kept")
        raise sniff.rejected("infected", "Malware was found in this file. It was not kept.")
    if verdict.note and verdict.state != "clean":
        log.warning("the scanner could not say: %s", verdict.note)
    return Examined(media_type, verdict.state, verdict.note)


def too_large(measured: int, limit: int) -> Refusal:
    """Both in bytes; people are told whole megabytes where the limit is so many, else kilobytes of 1024."""
    if limit % (1024 * 1024):
        unit, message = 1024, msgid("Send a file of at most {most} kB; this has {measured} kB.")
    else:
        unit, message = 1024 * 1024, msgid("Send a file of at most {most} MB; this has {measured} MB.")
    values = {"most": limit // unit, "measured": -(-measured // unit)}
    error = FieldError(sniff.FIELD, "too-large", message, values, limit)
    return Refusal("too-large", "This is too large.", errors=[error], limit=limit, measured=measured)
