from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "started", "config_sha256", "caller", "protocol", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    CONFIG_SHA256_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    started: str
    config_sha256: bytes
    caller: str
    protocol: int
    limits: Limits
    def __init__(self, version: _Optional[str] = ..., started: _Optional[str] = ..., config_sha256: _Optional[bytes] = ..., caller: _Optional[str] = ..., protocol: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("message_bytes_max", "answer_bytes_max", "digests_max", "stream_digests_unanswered_max", "document_bytes_max", "documents_max", "document_streams_max")
    MESSAGE_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    ANSWER_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_MAX_FIELD_NUMBER: _ClassVar[int]
    STREAM_DIGESTS_UNANSWERED_MAX_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_MAX_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_STREAMS_MAX_FIELD_NUMBER: _ClassVar[int]
    message_bytes_max: int
    answer_bytes_max: int
    digests_max: int
    stream_digests_unanswered_max: int
    document_bytes_max: int
    documents_max: int
    document_streams_max: int
    def __init__(self, message_bytes_max: _Optional[int] = ..., answer_bytes_max: _Optional[int] = ..., digests_max: _Optional[int] = ..., stream_digests_unanswered_max: _Optional[int] = ..., document_bytes_max: _Optional[int] = ..., documents_max: _Optional[int] = ..., document_streams_max: _Optional[int] = ...) -> None: ...

class ReloadConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadConfigResponse(_message.Message):
    __slots__ = ("config_sha256", "credentials", "callers")
    CONFIG_SHA256_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    config_sha256: bytes
    credentials: int
    callers: int
    def __init__(self, config_sha256: _Optional[bytes] = ..., credentials: _Optional[int] = ..., callers: _Optional[int] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens", "ledger")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    ledger: str
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., ledger: _Optional[str] = ...) -> None: ...

class WatchTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnlockTokenRequest(_message.Message):
    __slots__ = ("token", "override_final_try")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FINAL_TRY_FIELD_NUMBER: _ClassVar[int]
    token: str
    override_final_try: bool
    def __init__(self, token: _Optional[str] = ..., override_final_try: _Optional[bool] = ...) -> None: ...

class DrainTokenRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class ResumeTokenRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("name", "kind", "state", "since", "detail", "label", "serial", "model", "module", "credentials", "lanes", "waiting", "pin_tries_used", "pin_tries", "personal")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Token.State]
        ABSENT: _ClassVar[Token.State]
        CHANGED: _ClassVar[Token.State]
        OPEN: _ClassVar[Token.State]
        READY: _ClassVar[Token.State]
        LOCKED: _ClassVar[Token.State]
        QUARANTINED: _ClassVar[Token.State]
        TRIPPED: _ClassVar[Token.State]
        DRAINED: _ClassVar[Token.State]
        LEASED: _ClassVar[Token.State]
        WAITING: _ClassVar[Token.State]
        UNREACHABLE: _ClassVar[Token.State]
    STATE_UNSPECIFIED: Token.State
    ABSENT: Token.State
    CHANGED: Token.State
    OPEN: Token.State
    READY: Token.State
    LOCKED: Token.State
    QUARANTINED: Token.State
    TRIPPED: Token.State
    DRAINED: Token.State
    LEASED: Token.State
    WAITING: Token.State
    UNREACHABLE: Token.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODULE_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    PIN_TRIES_USED_FIELD_NUMBER: _ClassVar[int]
    PIN_TRIES_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    state: Token.State
    since: str
    detail: str
    label: str
    serial: str
    model: str
    module: str
    credentials: _containers.RepeatedScalarFieldContainer[str]
    lanes: _containers.RepeatedCompositeFieldContainer[Lane]
    waiting: int
    pin_tries_used: int
    pin_tries: int
    personal: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[_Union[Token.State, str]] = ..., since: _Optional[str] = ..., detail: _Optional[str] = ..., label: _Optional[str] = ..., serial: _Optional[str] = ..., model: _Optional[str] = ..., module: _Optional[str] = ..., credentials: _Optional[_Iterable[str]] = ..., lanes: _Optional[_Iterable[_Union[Lane, _Mapping]]] = ..., waiting: _Optional[int] = ..., pin_tries_used: _Optional[int] = ..., pin_tries: _Optional[int] = ..., personal: _Optional[bool] = ...) -> None: ...

class Lane(_message.Message):
    __slots__ = ("index", "state", "pid", "signatures", "errors", "starts", "losses", "per_second", "problem", "direct")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Lane.State]
        STARTING: _ClassVar[Lane.State]
        IDLE: _ClassVar[Lane.State]
        SIGNING: _ClassVar[Lane.State]
        STOPPING: _ClassVar[Lane.State]
        RESTING: _ClassVar[Lane.State]
        OPEN: _ClassVar[Lane.State]
    STATE_UNSPECIFIED: Lane.State
    STARTING: Lane.State
    IDLE: Lane.State
    SIGNING: Lane.State
    STOPPING: Lane.State
    RESTING: Lane.State
    OPEN: Lane.State
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    index: int
    state: Lane.State
    pid: int
    signatures: int
    errors: _containers.ScalarMap[str, int]
    starts: int
    losses: int
    per_second: float
    problem: str
    direct: bool
    def __init__(self, index: _Optional[int] = ..., state: _Optional[_Union[Lane.State, str]] = ..., pid: _Optional[int] = ..., signatures: _Optional[int] = ..., errors: _Optional[_Mapping[str, int]] = ..., starts: _Optional[int] = ..., losses: _Optional[int] = ..., per_second: _Optional[float] = ..., problem: _Optional[str] = ..., direct: _Optional[bool] = ...) -> None: ...

class RegisterCredentialRequest(_message.Message):
    __slots__ = ("name", "certificates", "key_label", "key_id", "outputs", "gate", "subject", "digests_max", "lifetime_s", "hours", "claimed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    KEY_LABEL_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_MAX_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    name: str
    certificates: bytes
    key_label: str
    key_id: bytes
    outputs: _containers.RepeatedScalarFieldContainer[str]
    gate: str
    subject: str
    digests_max: int
    lifetime_s: int
    hours: str
    claimed: bool
    def __init__(self, name: _Optional[str] = ..., certificates: _Optional[bytes] = ..., key_label: _Optional[str] = ..., key_id: _Optional[bytes] = ..., outputs: _Optional[_Iterable[str]] = ..., gate: _Optional[str] = ..., subject: _Optional[str] = ..., digests_max: _Optional[int] = ..., lifetime_s: _Optional[int] = ..., hours: _Optional[str] = ..., claimed: _Optional[bool] = ...) -> None: ...

class RegisterCredentialResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: str
    def __init__(self, state: _Optional[str] = ...) -> None: ...

class SetCredentialStateRequest(_message.Message):
    __slots__ = ("name", "suspended")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    name: str
    suspended: bool
    def __init__(self, name: _Optional[str] = ..., suspended: _Optional[bool] = ...) -> None: ...

class SetCredentialStateResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: str
    def __init__(self, state: _Optional[str] = ...) -> None: ...

class EnrolSubjectRequest(_message.Message):
    __slots__ = ("subject", "contact_kind", "contact", "factor", "language")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CONTACT_KIND_FIELD_NUMBER: _ClassVar[int]
    CONTACT_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    subject: str
    contact_kind: str
    contact: str
    factor: str
    language: str
    def __init__(self, subject: _Optional[str] = ..., contact_kind: _Optional[str] = ..., contact: _Optional[str] = ..., factor: _Optional[str] = ..., language: _Optional[str] = ...) -> None: ...

class EnrolSubjectResponse(_message.Message):
    __slots__ = ("begins",)
    BEGINS_FIELD_NUMBER: _ClassVar[int]
    begins: str
    def __init__(self, begins: _Optional[str] = ...) -> None: ...

class SuspendSubjectRequest(_message.Message):
    __slots__ = ("subject", "resume")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    subject: str
    resume: bool
    def __init__(self, subject: _Optional[str] = ..., resume: _Optional[bool] = ...) -> None: ...

class SuspendSubjectResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnlockSubjectRequest(_message.Message):
    __slots__ = ("subject",)
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    subject: str
    def __init__(self, subject: _Optional[str] = ...) -> None: ...

class UnlockSubjectResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfirmClockRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfirmClockResponse(_message.Message):
    __slots__ = ("step_s",)
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    step_s: float
    def __init__(self, step_s: _Optional[float] = ...) -> None: ...

class ListSubjectsRequest(_message.Message):
    __slots__ = ("subject", "after")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    subject: str
    after: str
    def __init__(self, subject: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ListSubjectsResponse(_message.Message):
    __slots__ = ("subjects", "next")
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    subjects: _containers.RepeatedCompositeFieldContainer[Subject]
    next: str
    def __init__(self, subjects: _Optional[_Iterable[_Union[Subject, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("name", "state", "factor", "contact_kind", "contact", "language", "enrolment_begins", "enrolment_ends", "attempts", "locked_until", "credentials")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    CONTACT_KIND_FIELD_NUMBER: _ClassVar[int]
    CONTACT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    ENROLMENT_BEGINS_FIELD_NUMBER: _ClassVar[int]
    ENROLMENT_ENDS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LOCKED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    factor: str
    contact_kind: str
    contact: str
    language: str
    enrolment_begins: str
    enrolment_ends: str
    attempts: int
    locked_until: str
    credentials: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., factor: _Optional[str] = ..., contact_kind: _Optional[str] = ..., contact: _Optional[str] = ..., language: _Optional[str] = ..., enrolment_begins: _Optional[str] = ..., enrolment_ends: _Optional[str] = ..., attempts: _Optional[int] = ..., locked_until: _Optional[str] = ..., credentials: _Optional[_Iterable[str]] = ...) -> None: ...
