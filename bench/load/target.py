"""Where the load goes: a server, who we are, and channels kept over the orders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import grpc

from bench.load.seen import Seen
from signer.request_id import new_request_id
from signer.v1 import signing_pb2 as pb
from signer.v1 import signing_pb2_grpc

SIGN_DIGESTS = "/signer.v1.Signing/SignDigests"
DOCUMENTS = 3  # of a case, and its first and last: what reads them needs some 50 ms for each


class Target:
    """
    `seen`: of what the order got, to be verified after it; `documents`: of the PDFs that were, to be looked into by others;
    `certificates`: of the credentials that were asked for, by their names, DER.
    """

    def __init__(self, address: str, ca: Path, certificate: Path, key: Path) -> None:
        self.address, self.ca, self.certificate, self.key = address, ca, certificate, key
        self._credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), certificate.read_bytes())
        self._channels: list[grpc.aio.Channel] = []
        self.seen, self.documents = Seen(), Seen(DOCUMENTS)
        self.certificates: dict[str, bytes] = {}

    def channels(self, count: int) -> list[grpc.aio.Channel]:
        """So many connections, the same ones at each order."""
        while len(self._channels) < count:
            options = [
                ("grpc.max_receive_message_length", 16 * 1024 * 1024),
                ("grpc.use_local_subchannel_pool", 1),  # otherwise channels to one address share one connection
            ]
            self._channels.append(grpc.aio.secure_channel(self.address, self._credentials, options=options))
        return self._channels[:count]

    def stubs(self, count: int) -> list[Any]:
        return [signing_pb2_grpc.SigningStub(channel) for channel in self.channels(count)]

    def bytes_call(self, channel: grpc.aio.Channel, method: str = SIGN_DIGESTS) -> Any:
        """A call of bytes: the request is made before the clock starts, the answer is read after it stops."""
        return channel.unary_unary(method, request_serializer=None, response_deserializer=None)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def request(credential: str, digests: Sequence[bytes], output: str = "RAW") -> pb.SignDigestsRequest:
    """With Ed25519 the digests are messages, and no digest algorithm is named."""
    scheme, crc32c = algorithm(credential), google_crc32c.value(b"".join(digests))
    if scheme == "ED25519":
        return pb.SignDigestsRequest(
            request_id=new_request_id(), credential=credential, output=output, signature_algorithm=scheme,
            messages=digests, crc32c=crc32c,
        )  # fmt: skip
    return pb.SignDigestsRequest(
        request_id=new_request_id(),
        credential=credential,
        output=output,
        digest_algorithm="SHA256",
        signature_algorithm=scheme,
        digests=digests,
        crc32c=crc32c,
    )


def again(message: bytes) -> bytes:
    """The same request, encoded, with an id of its own: its first field, 36 characters behind two bytes of protobuf's."""
    return message[:2] + new_request_id().encode() + message[38:]


def algorithm(credential: str) -> str:
    """By the credential's name, which ends with its key's kind."""
    if credential.endswith("ed25519"):
        return "ED25519"
    return "ECDSA" if credential.endswith(("p-256", "p-384", "p-521")) else "RSA_PKCS1_V15"
