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
    __slots__ = ("page_size", "page_token", "of_person")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OF_PERSON_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    of_person: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., of_person: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ListCredentialsResponse(_message.Message):
    __slots__ = ("credentials", "next_page_token")
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[Credential]
    next_page_token: str
    def __init__(self, credentials: _Optional[_Iterable[_Union[Credential, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetCredentialRequest(_message.Message):
    __slots__ = ("credential",)
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    credential: str
    def __init__(self, credential: _Optional[str] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("name", "purpose", "certificates", "key_type", "outputs", "signature_algorithms", "digest_algorithms", "cms_digests_max", "available", "unavailable_reason", "key_id", "cms_bytes_max", "gate", "subject", "state", "presence", "members")
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
    GATE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
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
    gate: str
    subject: str
    state: str
    presence: str
    members: _containers.RepeatedCompositeFieldContainer[Credential]
    def __init__(self, name: _Optional[str] = ..., purpose: _Optional[_Union[Credential.Purpose, str]] = ..., certificates: _Optional[_Iterable[bytes]] = ..., key_type: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., signature_algorithms: _Optional[_Iterable[_Union[SignatureAlgorithm, str]]] = ..., digest_algorithms: _Optional[_Iterable[_Union[DigestAlgorithm, str]]] = ..., cms_digests_max: _Optional[int] = ..., available: _Optional[bool] = ..., unavailable_reason: _Optional[str] = ..., key_id: _Optional[bytes] = ..., cms_bytes_max: _Optional[int] = ..., gate: _Optional[str] = ..., subject: _Optional[str] = ..., state: _Optional[str] = ..., presence: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Credential, _Mapping]]] = ...) -> None: ...

class SignDigestsRequest(_message.Message):
    __slots__ = ("request_id", "credential", "output", "digest_algorithm", "signature_algorithm", "digests", "crc32c", "messages", "timeout_s", "authorisation")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    AUTHORISATION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    credential: str
    output: Output
    digest_algorithm: DigestAlgorithm
    signature_algorithm: SignatureAlgorithm
    digests: _containers.RepeatedScalarFieldContainer[bytes]
    crc32c: int
    messages: _containers.RepeatedScalarFieldContainer[bytes]
    timeout_s: float
    authorisation: bytes
    def __init__(self, request_id: _Optional[str] = ..., credential: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., digest_algorithm: _Optional[_Union[DigestAlgorithm, str]] = ..., signature_algorithm: _Optional[_Union[SignatureAlgorithm, str]] = ..., digests: _Optional[_Iterable[bytes]] = ..., crc32c: _Optional[int] = ..., messages: _Optional[_Iterable[bytes]] = ..., timeout_s: _Optional[float] = ..., authorisation: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("status", "signature", "reason", "code")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    status: ItemStatus
    signature: bytes
    reason: str
    code: int
    def __init__(self, status: _Optional[_Union[ItemStatus, str]] = ..., signature: _Optional[bytes] = ..., reason: _Optional[str] = ..., code: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("index", "item", "accepted", "certificate")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    index: int
    item: SignedItem
    accepted: str
    certificate: bytes
    def __init__(self, index: _Optional[int] = ..., item: _Optional[_Union[SignedItem, _Mapping]] = ..., accepted: _Optional[str] = ..., certificate: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("open", "begin", "chunk", "end", "whole")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    open: OpenDocuments
    begin: BeginDocument
    chunk: bytes
    end: EndDocument
    whole: WholeDocument
    def __init__(self, open: _Optional[_Union[OpenDocuments, _Mapping]] = ..., begin: _Optional[_Union[BeginDocument, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[EndDocument, _Mapping]] = ..., whole: _Optional[_Union[WholeDocument, _Mapping]] = ...) -> None: ...

class OpenDocuments(_message.Message):
    __slots__ = ("request_id", "credential", "output", "digest_algorithm", "signature_algorithm", "enveloping", "authorisation")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    ENVELOPING_FIELD_NUMBER: _ClassVar[int]
    AUTHORISATION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    credential: str
    output: Output
    digest_algorithm: DigestAlgorithm
    signature_algorithm: SignatureAlgorithm
    enveloping: bool
    authorisation: bytes
    def __init__(self, request_id: _Optional[str] = ..., credential: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., digest_algorithm: _Optional[_Union[DigestAlgorithm, str]] = ..., signature_algorithm: _Optional[_Union[SignatureAlgorithm, str]] = ..., enveloping: _Optional[bool] = ..., authorisation: _Optional[bytes] = ...) -> None: ...

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

class WholeDocument(_message.Message):
    __slots__ = ("begin", "content", "crc32c")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    begin: BeginDocument
    content: bytes
    crc32c: int
    def __init__(self, begin: _Optional[_Union[BeginDocument, _Mapping]] = ..., content: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...

class SignDocumentsResponse(_message.Message):
    __slots__ = ("result", "chunk")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    result: DocumentResult
    chunk: bytes
    def __init__(self, result: _Optional[_Union[DocumentResult, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class DocumentResult(_message.Message):
    __slots__ = ("index", "status", "reason", "message", "input_sha256", "size", "sha256", "certificate", "token", "signing_time", "content", "retry_after_s", "code")
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
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
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
    content: bytes
    retry_after_s: float
    code: int
    def __init__(self, index: _Optional[int] = ..., status: _Optional[_Union[ItemStatus, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., input_sha256: _Optional[bytes] = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., token: _Optional[str] = ..., signing_time: _Optional[str] = ..., content: _Optional[bytes] = ..., retry_after_s: _Optional[float] = ..., code: _Optional[int] = ...) -> None: ...

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

class Terms(_message.Message):
    __slots__ = ("credential", "output", "digest_algorithm", "signature_algorithm", "caller", "items")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    credential: str
    output: Output
    digest_algorithm: DigestAlgorithm
    signature_algorithm: SignatureAlgorithm
    caller: str
    items: _containers.RepeatedCompositeFieldContainer[TermsItem]
    def __init__(self, credential: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., digest_algorithm: _Optional[_Union[DigestAlgorithm, str]] = ..., signature_algorithm: _Optional[_Union[SignatureAlgorithm, str]] = ..., caller: _Optional[str] = ..., items: _Optional[_Iterable[_Union[TermsItem, _Mapping]]] = ...) -> None: ...

class TermsItem(_message.Message):
    __slots__ = ("name", "input_sha256", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    input_sha256: bytes
    digest: bytes
    def __init__(self, name: _Optional[str] = ..., input_sha256: _Optional[bytes] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Login(_message.Message):
    __slots__ = ("credential", "digest_algorithm", "signature_algorithm", "audience", "nonce")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    credential: str
    digest_algorithm: DigestAlgorithm
    signature_algorithm: SignatureAlgorithm
    audience: str
    nonce: bytes
    def __init__(self, credential: _Optional[str] = ..., digest_algorithm: _Optional[_Union[DigestAlgorithm, str]] = ..., signature_algorithm: _Optional[_Union[SignatureAlgorithm, str]] = ..., audience: _Optional[str] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class RequestOtpRequest(_message.Message):
    __slots__ = ("terms", "login", "batch", "change", "source")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    terms: Terms
    login: Login
    batch: str
    change: str
    source: str
    def __init__(self, terms: _Optional[_Union[Terms, _Mapping]] = ..., login: _Optional[_Union[Login, _Mapping]] = ..., batch: _Optional[str] = ..., change: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class RequestOtpResponse(_message.Message):
    __slots__ = ("contact", "short_digest", "expires")
    CONTACT_FIELD_NUMBER: _ClassVar[int]
    SHORT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    contact: str
    short_digest: str
    expires: str
    def __init__(self, contact: _Optional[str] = ..., short_digest: _Optional[str] = ..., expires: _Optional[str] = ...) -> None: ...

class AuthorizeRequest(_message.Message):
    __slots__ = ("terms", "secret_code", "otp", "source")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    SECRET_CODE_FIELD_NUMBER: _ClassVar[int]
    OTP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    terms: Terms
    secret_code: str
    otp: str
    source: str
    def __init__(self, terms: _Optional[_Union[Terms, _Mapping]] = ..., secret_code: _Optional[str] = ..., otp: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class AuthorizeResponse(_message.Message):
    __slots__ = ("authorisation", "expires", "short_digest")
    AUTHORISATION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    SHORT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    authorisation: bytes
    expires: str
    short_digest: str
    def __init__(self, authorisation: _Optional[bytes] = ..., expires: _Optional[str] = ..., short_digest: _Optional[str] = ...) -> None: ...

class AuthenticateRequest(_message.Message):
    __slots__ = ("request_id", "login", "secret_code", "otp", "source", "known")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    SECRET_CODE_FIELD_NUMBER: _ClassVar[int]
    OTP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    login: Login
    secret_code: str
    otp: str
    source: str
    known: bool
    def __init__(self, request_id: _Optional[str] = ..., login: _Optional[_Union[Login, _Mapping]] = ..., secret_code: _Optional[str] = ..., otp: _Optional[str] = ..., source: _Optional[str] = ..., known: _Optional[bool] = ...) -> None: ...

class AuthenticateResponse(_message.Message):
    __slots__ = ("statement", "signature", "certificates")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    signature: bytes
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CompleteEnrolmentRequest(_message.Message):
    __slots__ = ("enrolment", "secret_code", "otp", "source")
    ENROLMENT_FIELD_NUMBER: _ClassVar[int]
    SECRET_CODE_FIELD_NUMBER: _ClassVar[int]
    OTP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    enrolment: str
    secret_code: str
    otp: str
    source: str
    def __init__(self, enrolment: _Optional[str] = ..., secret_code: _Optional[str] = ..., otp: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class CompleteEnrolmentResponse(_message.Message):
    __slots__ = ("subject", "otp_uri", "contact", "complete")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    OTP_URI_FIELD_NUMBER: _ClassVar[int]
    CONTACT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    subject: str
    otp_uri: str
    contact: str
    complete: bool
    def __init__(self, subject: _Optional[str] = ..., otp_uri: _Optional[str] = ..., contact: _Optional[str] = ..., complete: _Optional[bool] = ...) -> None: ...

class ChangeCodeRequest(_message.Message):
    __slots__ = ("credential", "secret_code", "otp", "source", "new_secret_code", "known")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SECRET_CODE_FIELD_NUMBER: _ClassVar[int]
    OTP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NEW_SECRET_CODE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    credential: str
    secret_code: str
    otp: str
    source: str
    new_secret_code: str
    known: bool
    def __init__(self, credential: _Optional[str] = ..., secret_code: _Optional[str] = ..., otp: _Optional[str] = ..., source: _Optional[str] = ..., new_secret_code: _Optional[str] = ..., known: _Optional[bool] = ...) -> None: ...

class ChangeCodeResponse(_message.Message):
    __slots__ = ("subject",)
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    subject: str
    def __init__(self, subject: _Optional[str] = ...) -> None: ...

class OpenBatchRequest(_message.Message):
    __slots__ = ("open", "begin", "chunk", "end", "digest")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    open: BatchOpening
    begin: BeginDocument
    chunk: bytes
    end: EndDocument
    digest: TermsItem
    def __init__(self, open: _Optional[_Union[BatchOpening, _Mapping]] = ..., begin: _Optional[_Union[BeginDocument, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[EndDocument, _Mapping]] = ..., digest: _Optional[_Union[TermsItem, _Mapping]] = ...) -> None: ...

class BatchOpening(_message.Message):
    __slots__ = ("request_id", "credential", "output", "digest_algorithm", "signature_algorithm")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    credential: str
    output: Output
    digest_algorithm: DigestAlgorithm
    signature_algorithm: SignatureAlgorithm
    def __init__(self, request_id: _Optional[str] = ..., credential: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., digest_algorithm: _Optional[_Union[DigestAlgorithm, str]] = ..., signature_algorithm: _Optional[_Union[SignatureAlgorithm, str]] = ...) -> None: ...

class OpenBatchResponse(_message.Message):
    __slots__ = ("batch", "link")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    link: str
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., link: _Optional[str] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("request_id", "state", "caller", "credential", "subject", "output", "items", "as_claimed", "opened", "expires", "short_digest", "count")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Batch.State]
        OPEN: _ClassVar[Batch.State]
        SIGNED: _ClassVar[Batch.State]
        CANCELLED: _ClassVar[Batch.State]
        SIGNING: _ClassVar[Batch.State]
    STATE_UNSPECIFIED: Batch.State
    OPEN: Batch.State
    SIGNED: Batch.State
    CANCELLED: Batch.State
    SIGNING: Batch.State
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    AS_CLAIMED_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    SHORT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    state: Batch.State
    caller: str
    credential: str
    subject: str
    output: Output
    items: _containers.RepeatedCompositeFieldContainer[BatchItem]
    as_claimed: bool
    opened: str
    expires: str
    short_digest: str
    count: int
    def __init__(self, request_id: _Optional[str] = ..., state: _Optional[_Union[Batch.State, str]] = ..., caller: _Optional[str] = ..., credential: _Optional[str] = ..., subject: _Optional[str] = ..., output: _Optional[_Union[Output, str]] = ..., items: _Optional[_Iterable[_Union[BatchItem, _Mapping]]] = ..., as_claimed: _Optional[bool] = ..., opened: _Optional[str] = ..., expires: _Optional[str] = ..., short_digest: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class BatchItem(_message.Message):
    __slots__ = ("name", "size", "input_sha256", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    input_sha256: bytes
    digest: bytes
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., input_sha256: _Optional[bytes] = ..., digest: _Optional[bytes] = ...) -> None: ...

class GetBatchRequest(_message.Message):
    __slots__ = ("request_id", "link", "with_document", "index")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    WITH_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    link: str
    with_document: bool
    index: int
    def __init__(self, request_id: _Optional[str] = ..., link: _Optional[str] = ..., with_document: _Optional[bool] = ..., index: _Optional[int] = ...) -> None: ...

class GetBatchResponse(_message.Message):
    __slots__ = ("batch", "chunk")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    chunk: bytes
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ListBatchesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBatchesResponse(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    def __init__(self, batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ...) -> None: ...

class CancelBatchRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class CancelBatchResponse(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ...) -> None: ...

class SignBatchRequest(_message.Message):
    __slots__ = ("request_id", "secret_code", "otp", "source", "pin", "override_final_try")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_CODE_FIELD_NUMBER: _ClassVar[int]
    OTP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FINAL_TRY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    secret_code: str
    otp: str
    source: str
    pin: str
    override_final_try: bool
    def __init__(self, request_id: _Optional[str] = ..., secret_code: _Optional[str] = ..., otp: _Optional[str] = ..., source: _Optional[str] = ..., pin: _Optional[str] = ..., override_final_try: _Optional[bool] = ...) -> None: ...

class SignBatchResponse(_message.Message):
    __slots__ = ("batch", "outcomes")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    outcomes: _containers.RepeatedCompositeFieldContainer[SignBatchOutcome]
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[SignBatchOutcome, _Mapping]]] = ...) -> None: ...

class SignBatchOutcome(_message.Message):
    __slots__ = ("status", "reason", "code")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    status: ItemStatus
    reason: str
    code: int
    def __init__(self, status: _Optional[_Union[ItemStatus, str]] = ..., reason: _Optional[str] = ..., code: _Optional[int] = ...) -> None: ...
