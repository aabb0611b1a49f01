"""
Every limit of the service: its unit in its name, its reason beside it.

The transport's own limits are four times the documented ones, so that what is over a documented limit still reaches
the service and gets a reason; past them gRPC answers a bare RESOURCE_EXHAUSTED.
"""

import errno

MIB = 1024 * 1024

MESSAGE_BYTES_MAX = 1 * MIB  # a request message: 5 000 SHA-512 digests are 330 kB
ANSWER_BYTES_MAX = 4 * MIB  # an answer: gRPC's own default for receivers, which clients rarely change
METADATA_BYTES_MAX = 8 * 1024  # gRPC's own default
TRANSPORT_MESSAGE_BYTES_MAX = 4 * MESSAGE_BYTES_MAX
TRANSPORT_METADATA_BYTES_MAX = 4 * METADATA_BYTES_MAX

DIGESTS_MAX = 5_000  # a message: about 3.5 s of one RSA-2048 lane
STRING_CHARACTERS_MAX = 255  # a name for people
STREAM_UNANSWERED_DIGESTS_MAX = 20_000  # then the stream is not read: what a slow reader may make us hold
STREAM_LIFE_S = 1_800  # then the client opens another: policy and certificates are looked at anew

CHUNK_BYTES_MAX = 256 * 1024  # a document chunk: several fit a flow-control window
DOCUMENT_BYTES_MAX = 128 * MIB
# A document that is so short is never on the disk, where making and removing a file costs 150 us; one that does not say how
# long it is moves there when it is longer.
MEMORY_DOCUMENT_BYTES_MAX = 256 * 1024
# With so many files of its caller in work, a document that does not say how long it is begins on the disk: 4 streams of 16.
# VerifyDocument, which is never told, has no streams that bound it.
MEMORY_DOCUMENTS_MAX = 64
# What it may grow by when it is prepared: a gap and a few objects that are written anew are tens of kilobytes, but a file of
# 16 kB can be made whose catalog unpacks to 16 MB. One caller has 64 in work: 80 MiB at most, 20 as a rule.
MEMORY_DOCUMENT_GROWTH_MAX = 1 * MIB
DOCUMENTS_MAX = 1_000  # a stream
# Of one stream, uploaded and not yet answered. A document that is signed waits for two commits of the ledger and for its
# place in a frame: three streams have 0.78 of the rate with 4 in work that they have with 16, and with 8 0.93.
DOCUMENTS_IN_WORK_MAX = 16
# One on the disk counts as so many: 4 of the longest on each stream are what a caller may hold there.
DISK_DOCUMENT_COUNTS = 4
DOCUMENT_STREAMS_MAX = 4  # of one caller
DOCUMENT_IDLE_S = 600
DOCUMENT_S = 900  # of each, from its first byte until its answer was taken: so long it may be kept
DOCUMENT_LIFE_S = 3_600  # of a stream of them
SPOOL_BYTES_MAX = 10 * 1024 * MIB  # documents of all callers at one time
SPOOL_CALLER_BYTES_MAX = 2 * 1024 * MIB
SPOOL_FILES_SHARE = 0.125  # of the descriptors, for documents in work: half of what connections leave
SPOOL_CALLER_FILES_SURE = 32  # of one caller, however many the others have: a stream's worth with an answer each
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})  # what the system says then

DESCRIPTORS_WANTED = 16_384  # of the process; its own limit is raised to that where the system allows
CONNECTIONS_MAX = 8_192  # of all listeners; 70 KB each when nothing happens on it: 0.6 GB
CONNECTIONS_SHARE = 0.75  # of the descriptors at most; documents, lanes, assembly processes and the database need some
CONNECTION_IDLE_S = 300  # without a call; the client's library connects again at its next one
METRICS_CONNECTIONS_MAX = 8  # of /metrics: more than there are Prometheus servers; a thread each
METRICS_CONNECTIONS_SHARE = 1 / 64  # of the descriptors at most
METRICS_SILENT_S = 5.0  # then such a connection is hung up on

CALL_S = 30.0  # a call without a deadline of its own
BATCH_CALL_S = 600.0  # the longest deadline that a call is given
DEADLINE_MARGIN_S = 0.020  # answers this much before the caller's deadline arrive with their reason (measured: 5 ms
DEADLINE_MARGIN_SHARE = 0.02  # does on an idle machine; a loaded one wants a share)

CALLS_MAX = 512  # in work at one time; two callers' worth
CALLER_CALLS_MAX = 256  # of one caller: 64 in flight on four channels
CALLER_CALLS_SURE = 32  # of one caller, however many the others have: idle streams of two must not shut a third one out
# Of one caller's requests that wait for their turn and are not parsed yet: 256 of 5 000 SHA-256 digests are 45 MB.
CALLER_WAITING_BYTES_MAX = 64 * MIB
CALLER_ANSWER_BYTES_MAX = 64 * MIB  # promised to one caller and not yet taken: 16 of the largest answers
OTHERS_MESSAGE_BYTES_MAX = 1024  # to health and reflection: the name of a service or a file
OTHERS_STREAMS_MAX = 64  # of one caller there: a client that watches health has one for each connection; 20 KB each
DRAIN_S = 30.0  # from SIGTERM to the end
# So much before it what waits is given back: what lanes have takes 40 ms as a rule, of a card two signatures (1.4 s).
DRAIN_GIVE_BACK_S = 3.0
DRAIN_ANSWER_S = 1.0  # ... and who waits for a lane that hangs is answered so much before it: a commit, and the way

ASSEMBLY_CPU_S = 10  # of one document, in its process
ASSEMBLY_MEMORY_BYTES_MAX = 512 * MIB  # of an assembly process
ASSEMBLY_ANSWER_S = 60.0  # of wall time, when the machine is busy
ASSEMBLY_DOCUMENTS_MAX = (
    10_000  # then the process is replaced, and what leaks in parsers goes with it; a start costs 0.6 s
)
ASSEMBLY_WORN_BYTES = 192 * MIB  # ... or when it has held so much at one time: it starts with 60
ASSEMBLY_START_S = 0.5  # of a processor: what a document that takes its process down costs its caller besides
ASSEMBLY_RESTART_S = 0.5  # after a process that did not start: there is a reason, and it may go away
