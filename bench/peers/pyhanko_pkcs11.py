"""
pyHanko's own way: its PKCS11Signer and PdfSigner, one process, one document after the other, all in memory.

    python -m bench.peers.pyhanko_pkcs11 MODULE TOKEN-LABEL PIN-FILE KEY-LABEL CHAIN.pem

Then one JSON order a line, {"files": [...], "seconds": 1.0, "size_given": false}; answers {"count": ..., "seconds": ...}.
Without the size, as its documentation shows it, pyHanko makes the CMS once more to learn how long it will be, all but the
token's signature; with `size_given` it is told.
"""

import json
import sys
import time
from io import BytesIO
from pathlib import Path

import pkcs11
from pyhanko.keys import load_certs_from_pemder
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import PdfSignatureMetadata, PdfSigner
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko.sign.pkcs11 import PKCS11Signer

CMS_BYTES = 8192  # in hexadecimal, twice what this chain's CMS has or more; pyHanko refuses what does not fit


def main() -> None:
    module, label, pin_file, key_label, chain = sys.argv[1:]
    session = pkcs11.lib(module).get_token(token_label=label).open(user_pin=Path(pin_file).read_text().strip())
    certificate, *issuers = load_certs_from_pemder([chain])
    signer = PKCS11Signer(session, key_label=key_label, signing_cert=certificate, ca_chain=issuers)
    fields = PdfSignatureMetadata(field_name="Bench", md_algorithm="sha256", subfilter=SigSeedSubFilter.PADES)
    pdf_signer = PdfSigner(fields, signer)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        contents = [Path(file).read_bytes() for file in order["files"]]
        reserved = CMS_BYTES if order["size_given"] else None
        began = time.monotonic()
        count = 0
        while (took := time.monotonic() - began) < order["seconds"]:
            writer = IncrementalPdfFileWriter(BytesIO(contents[count % len(contents)]), strict=False)
            pdf_signer.sign_pdf(writer, bytes_reserved=reserved)
            count += 1
        print(json.dumps({"count": count, "seconds": took}), flush=True)


if __name__ == "__main__":
    main()
