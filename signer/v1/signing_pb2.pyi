from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    RAW: _ClassVar[Output]
    CADES_B_B: _ClassVar[Output]
    PADES_B_B: _ClassVar[Output]

class DigestAlgorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIGEST_ALGORITHM_UNSPECIFIED: _ClassVar[DigestAlgorithm]
    SHA256: _ClassVar[DigestAlgorithm]
    SHA384: _ClassVar[DigestAlgorithm]
    SHA512: _ClassVar[DigestAlgorithm]

class SignatureAlgorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIGNATURE_ALGORITHM_UNSPECIFIED: _ClassVar[SignatureAlgorithm]
    RSA_PKCS1_V15: _ClassVar[SignatureAlgorithm]
    RSA_PSS: _ClassVar[SignatureAlgorithm]
    ECDSA: _ClassVar[SignatureAlgorithm]
    ED25519: _ClassVar[SignatureAlgorithm]

class ItemStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_STATUS_UNSPECIFIED: _ClassVar[ItemStatus]
    SIGNED: _ClassVar[ItemStatus]
    FAILED: _ClassVar[ItemStatus]
    INDETERMINATE: _ClassVar[ItemStatus]
    NOT_ATTEMPTED: _ClassVar[ItemStatus]
OUTPUT_UNSPECIFIED: Output
RAW: Output
CADES_B_B: Output
PADES_B_B: Output
DIGEST_ALGORITHM_UNSPECIFIED: DigestAlgorithm
SHA256: DigestAlgorithm
SHA384: DigestAlgorithm
SHA512: DigestAlgorithm
SIGNATURE_ALGORITHM_UNSPECIFIED: SignatureAlgorithm
RSA_PKCS1_V15: SignatureAlgorithm
RSA_PSS: SignatureAlgorithm
ECDSA: SignatureAlgorithm
ED25519: SignatureAlgorithm
ITEM_STATUS_UNSPECIFIED: ItemStatus
SIGNED: ItemStatus
FAILED: ItemStatus
INDETERMINATE: ItemStatus
NOT_ATTEMPTED: ItemStatus

class ListCredentialsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCredentialsResponse(_message.Message):
    __slots__ = ("credentials",)
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[Credential]
    def __init__(self, credentials: _Optional[_Iterable[_Union[Credential, _Mapping]]] = ...) -> None: ...

class GetCredentialRequest(_message.Message):
    __slots__ = ("credential",)
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    credential: str
    def __init__(self, credential: _Optional[str] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("name", "purpose", "certificates", "key_type", "outputs", "signature_algorithms", "digest_algorithms", "cms_digests_max", "available", "unavailable_reason", "key_id", "cms_bytes_max")
    class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PURPOSE_UNSPECIFIED: _ClassVar[Credential.Purpose]
        SIGNATURE: _ClassVar[Credential.Purpose]
        AUTHENTICATION: _ClassVar[Credential.Purpose]
    PURPOSE_UNSPECIFIED: Credential.Purpose
    SIGNATURE: Credential.Purpose
    AUTHENTICATION: Credential.Purpose
    NAME_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    KEY_TYPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHMS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHMS_FIELD_NUMBER: _ClassVar[int]
    CMS_DIGESTS_MAX_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_REASON_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    CMS_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    name: str
    purpose: Credential.Purpose
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    key_type: str
    outputs: _containers.RepeatedScalarFieldContainer[Output]
    signature_algorithms: _containers.RepeatedScalarFieldContainer[SignatureAlgorithm]
    digest_algorithms: _containers.RepeatedScalarFieldContainer[DigestAlgorithm]
    cms_digests_max: int
    available: bool
    unavailable_reason: str
    key_id: bytes
    cms_bytes_max: int
    def __init__(self, name: _Optional[str] = ..., purpose: _Optional[_Union[Credential.Purpose, str]] = ..., certificates: _Optional[_Iterable[bytes]] = ..., key_type: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., signature_algorithms: _Optional[_Iterable[_Union[SignatureAlgorithm, str]]] = ..., digest_algorithms: _Optional[_Iterable[_Union[DigestAlgorithm, str]]] = ..., cms_digests_max: _Optional[int] = ..., available: _Optional[bool] = ..., unavailable_reason: _Optional[str] = ..., key_id: _Optional[bytes] = ..., cms_bytes_max: _Optional[int] = ...) -> None: ...

class SignDigestsRequest(_message.Message):
    __slots__ = ("request_id", "credential", "output", "digest_algorithm", "signature_algorithm", "digests", "crc32c", "messages", "timeout_s")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    credential: str
    output: Output
    digest_algorithm: DigestAlgorithm
    signature_algorithm: SignatureAlgorithm
    digests: _containers.RepeatedScalarFieldContainer[bytes]
    crc32c: int
    messages: _containers.RepeatedScalarFieldContainer[bytes]
    timeout_s: float
    def __init__(self, request_id: _Optional[str] = ..., credential: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., digest_algorithm: _Optional[_Union[DigestAlgorithm, str]] = ..., signature_algorithm: _Optional[_Union[SignatureAlgorithm, str]] = ..., digests: _Optional[_Iterable[bytes]] = ..., crc32c: _Optional[int] = ..., messages: _Optional[_Iterable[bytes]] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class SignDigestsResponse(_message.Message):
    __slots__ = ("request_id", "items", "certificate", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[SignedItem]
    certificate: bytes
    error: Problem
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[SignedItem, _Mapping]]] = ..., certificate: _Optional[bytes] = ..., error: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class SignedItem(_message.Message):
    __slots__ = ("status", "signature", "reason")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    status: ItemStatus
    signature: bytes
    reason: str
    def __init__(self, status: _Optional[_Union[ItemStatus, str]] = ..., signature: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class GetResultRequest(_message.Message):
    __slots__ = ("request_id", "first")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    first: int
    def __init__(self, request_id: _Optional[str] = ..., first: _Optional[int] = ...) -> None: ...

class GetResultResponse(_message.Message):
    __slots__ = ("request_id", "output", "items", "certificate", "next")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    output: Output
    items: _containers.RepeatedCompositeFieldContainer[ResultItem]
    certificate: bytes
    next: int
    def __init__(self, request_id: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., items: _Optional[_Iterable[_Union[ResultItem, _Mapping]]] = ..., certificate: _Optional[bytes] = ..., next: _Optional[int] = ...) -> None: ...

class ResultItem(_message.Message):
    __slots__ = ("index", "item", "accepted")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    index: int
    item: SignedItem
    accepted: str
    def __init__(self, index: _Optional[int] = ..., item: _Optional[_Union[SignedItem, _Mapping]] = ..., accepted: _Optional[str] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("reason", "message", "code", "retry_after_s")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    code: int
    retry_after_s: float
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., code: _Optional[int] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class SignDocumentsRequest(_message.Message):
    __slots__ = ("open", "begin", "chunk", "end")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    open: OpenDocuments
    begin: BeginDocument
    chunk: bytes
    end: EndDocument
    def __init__(self, open: _Optional[_Union[OpenDocuments, _Mapping]] = ..., begin: _Optional[_Union[BeginDocument, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[EndDocument, _Mapping]] = ...) -> None: ...

class OpenDocuments(_message.Message):
    __slots__ = ("request_id", "credential", "output", "digest_algorithm", "signature_algorithm", "enveloping")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    ENVELOPING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    credential: str
    output: Output
    digest_algorithm: DigestAlgorithm
    signature_algorithm: SignatureAlgorithm
    enveloping: bool
    def __init__(self, request_id: _Optional[str] = ..., credential: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., digest_algorithm: _Optional[_Union[DigestAlgorithm, str]] = ..., signature_algorithm: _Optional[_Union[SignatureAlgorithm, str]] = ..., enveloping: _Optional[bool] = ...) -> None: ...

class BeginDocument(_message.Message):
    __slots__ = ("index", "name", "size", "reason", "location")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    size: int
    reason: str
    location: str
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., size: _Optional[int] = ..., reason: _Optional[str] = ..., location: _Optional[str] = ...) -> None: ...

class EndDocument(_message.Message):
    __slots__ = ("crc32c",)
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    crc32c: int
    def __init__(self, crc32c: _Optional[int] = ...) -> None: ...

class SignDocumentsResponse(_message.Message):
    __slots__ = ("result", "chunk")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    result: DocumentResult
    chunk: bytes
    def __init__(self, result: _Optional[_Union[DocumentResult, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class DocumentResult(_message.Message):
    __slots__ = ("index", "status", "reason", "message", "input_sha256", "size", "sha256", "certificate", "token", "signing_time")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SIGNING_TIME_FIELD_NUMBER: _ClassVar[int]
    index: int
    status: ItemStatus
    reason: str
    message: str
    input_sha256: bytes
    size: int
    sha256: bytes
    certificate: bytes
    token: str
    signing_time: str
    def __init__(self, index: _Optional[int] = ..., status: _Optional[_Union[ItemStatus, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., input_sha256: _Optional[bytes] = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., token: _Optional[str] = ..., signing_time: _Optional[str] = ...) -> None: ...

class VerifyDocumentRequest(_message.Message):
    __slots__ = ("open", "chunk", "content")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    open: OpenVerify
    chunk: bytes
    content: bytes
    def __init__(self, open: _Optional[_Union[OpenVerify, _Mapping]] = ..., chunk: _Optional[bytes] = ..., content: _Optional[bytes] = ...) -> None: ...

class OpenVerify(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class VerifyDocumentResponse(_message.Message):
    __slots__ = ("readable", "problem", "kind", "pages", "input_sha256", "signatures")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[VerifyDocumentResponse.Kind]
        PDF: _ClassVar[VerifyDocumentResponse.Kind]
        CMS: _ClassVar[VerifyDocumentResponse.Kind]
    KIND_UNSPECIFIED: VerifyDocumentResponse.Kind
    PDF: VerifyDocumentResponse.Kind
    CMS: VerifyDocumentResponse.Kind
    READABLE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    readable: bool
    problem: str
    kind: VerifyDocumentResponse.Kind
    pages: int
    input_sha256: bytes
    signatures: _containers.RepeatedCompositeFieldContainer[SignatureReport]
    def __init__(self, readable: _Optional[bool] = ..., problem: _Optional[str] = ..., kind: _Optional[_Union[VerifyDocumentResponse.Kind, str]] = ..., pages: _Optional[int] = ..., input_sha256: _Optional[bytes] = ..., signatures: _Optional[_Iterable[_Union[SignatureReport, _Mapping]]] = ...) -> None: ...

class SignatureReport(_message.Message):
    __slots__ = ("valid", "reason", "certificate", "subject", "trusted", "trust_reason", "chain", "time", "algorithm", "covers", "revision_sha256", "changes_after", "profile")
    class Coverage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COVERAGE_UNSPECIFIED: _ClassVar[SignatureReport.Coverage]
        WHOLE_FILE: _ClassVar[SignatureReport.Coverage]
        REVISION: _ClassVar[SignatureReport.Coverage]
        PARTIAL: _ClassVar[SignatureReport.Coverage]
    COVERAGE_UNSPECIFIED: SignatureReport.Coverage
    WHOLE_FILE: SignatureReport.Coverage
    REVISION: SignatureReport.Coverage
    PARTIAL: SignatureReport.Coverage
    class Changes(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHANGES_UNSPECIFIED: _ClassVar[SignatureReport.Changes]
        NO_CHANGES: _ClassVar[SignatureReport.Changes]
        PERMITTED: _ClassVar[SignatureReport.Changes]
        NOT_PERMITTED: _ClassVar[SignatureReport.Changes]
        UNKNOWN: _ClassVar[SignatureReport.Changes]
    CHANGES_UNSPECIFIED: SignatureReport.Changes
    NO_CHANGES: SignatureReport.Changes
    PERMITTED: SignatureReport.Changes
    NOT_PERMITTED: SignatureReport.Changes
    UNKNOWN: SignatureReport.Changes
    VALID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_FIELD_NUMBER: _ClassVar[int]
    TRUST_REASON_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    COVERS_FIELD_NUMBER: _ClassVar[int]
    REVISION_SHA256_FIELD_NUMBER: _ClassVar[int]
    CHANGES_AFTER_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    reason: str
    certificate: bytes
    subject: str
    trusted: bool
    trust_reason: str
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    time: str
    algorithm: str
    covers: SignatureReport.Coverage
    revision_sha256: bytes
    changes_after: SignatureReport.Changes
    profile: str
    def __init__(self, valid: _Optional[bool] = ..., reason: _Optional[str] = ..., certificate: _Optional[bytes] = ..., subject: _Optional[str] = ..., trusted: _Optional[bool] = ..., trust_reason: _Optional[str] = ..., chain: _Optional[_Iterable[bytes]] = ..., time: _Optional[str] = ..., algorithm: _Optional[str] = ..., covers: _Optional[_Union[SignatureReport.Coverage, str]] = ..., revision_sha256: _Optional[bytes] = ..., changes_after: _Optional[_Union[SignatureReport.Changes, str]] = ..., profile: _Optional[str] = ...) -> None: ...
