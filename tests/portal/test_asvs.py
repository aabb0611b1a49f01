"""The checklist of OWASP ASVS 5.0 is whole, and says what is so."""

import re
from collections import Counter
from collections.abc import Mapping

import pytest

from portal_adapter import serving
from portal_adapter.auth import strength
from portal_adapter.auth.session import FRESH_S
from portal_adapter.domain.actor import RIGHTS
from portal_adapter.files.names import ENDINGS
from portal_adapter.settings import Limits
from portal_adapter.web.body import FIELDS_MAX, MARKS_MAX
from portal_adapter.web.lines import OF_NOBODY_MAX, OF_ONE_MAX
from portal_adapter.window.settings import Limits as WindowLimits
from signer.judge import GUESSES_MIN
from signer.secret import CHARACTERS_MAX, CHARACTERS_MIN
from tests.portal.asvs_list import CHAPTERS, LIST, ROOT, exists, items, written

OF_LEVEL_3 = {"8.3.3", "7.5.3", "5.2.4", "15.4.2"}
# Of version 5.0.0: how many items of level 1, and of level 2, a chapter has; the four of level 3 are beside them.
LEVELS_1_2 = {
    1: (8, 19), 2: (4, 7), 3: (8, 11), 4: (2, 8), 5: (4, 5), 6: (13, 22), 7: (6, 12), 8: (4, 3), 9: (4, 3), 10: (5, 24),
    11: (3, 11), 12: (3, 6), 13: (1, 12), 14: (2, 7), 15: (3, 10), 16: (0, 16), 17: (0, 7),
}  # fmt: skip


def test_every_item_has_its_tests_or_its_reason() -> None:
    """
    Row 6.1: ASVS L2 checklist as code: each item of levels 1 and 2, and of level 3 8.3.3, 7.5.3, 5.2.4 and 15.4.2, has an
    automated test, or says why it does not apply.
    """
    found = items()
    assert {one.id for one in found if one.level == 3} == OF_LEVEL_3
    count = Counter((one.chapter, one.level) for one in found)
    assert {chapter: (count[chapter, 1], count[chapter, 2]) for chapter in CHAPTERS} == LEVELS_1_2
    order = [tuple(map(int, one.id.split("."))) for one in found]
    assert order == sorted(set(order)) and all(len(one) == 3 for one in order)
    for one in found:
        assert one.text.endswith("."), one.id
        assert sum(map(bool, (one.tests, one.not_applicable, one.missing))) == 1, one.id
        assert one.tests or not one.note, one.id
        assert len(set(one.tests)) == len(one.tests), one.id
        assert [test for test in one.tests if not exists(test)] == [], one.id


def test_a_test_that_there_is_not_is_found_out() -> None:
    """By its file, its name, and a name that is no test's."""
    assert exists("test_asvs.py::test_a_test_that_there_is_not_is_found_out")
    assert exists("tests/test_layers.py::test_imports_point_one_way")
    assert not exists("test_asvs.py::test_nothing")
    assert not exists("test_nothing.py::test_nothing")
    assert not exists("asvs_list.py::items")


def test_the_list_is_the_one_that_there_is() -> None:
    """`python -m tests.portal.asvs_list` writes it."""
    assert LIST.read_text() == written(), "python -m tests.portal.asvs_list writes it anew"


# ---- what has to be written down

DECISIONS = ROOT / "portal_adapter" / "SECURITY.md"
LIMITS, OF_WINDOW = Limits(), WindowLimits()
# Section -> what stands in it: that it is said at all, and each figure as the code has it.
SAID: Mapping[str, tuple[str, ...]] = {
    "Input": (
        f"at most {FIELDS_MAX} fields and {LIMITS.form_bytes} bytes", f"of {OF_WINDOW.form_bytes} bytes", f"{MARKS_MAX} marks",
        "NFC", "e-mail address", "IBAN", "What belongs together is checked together", "refused on the server",
    ),
    "Limits": (
        *(
            f"`{name}` | {getattr(LIMITS, name)} |"
            for name in (
                *("login_a_minute", "uploads_a_minute", "signings_a_minute", "messages_an_hour", "document_bytes"),
                *("archive_documents", "attachments", "unsent_bytes", "person_bytes", "person_files", "image_pixels", "challenge_s", "invitation_s"),
            )
        ),
        f"`tries_a_minute` | {OF_WINDOW.tries_a_minute} |", f"{LIMITS.idle_s}, {LIMITS.session_s}", "`spaces_max` | 200 |",
        f"{serving.ACCEPTED_MAX} at a listener, {serving.CONNECTIONS_OF_ONE} of one network",
        f"{OF_NOBODY_MAX} a minute, {OF_ONE_MAX} of one",
    ),
    "Files": (
        *(f"`{ending}`" for endings in ENDINGS.values() for ending in endings),
        f"at most {LIMITS.document_bytes} bytes", f"at most {LIMITS.image_pixels} pixels", "Malware", "state/quarantine",
    ),
    "Guessing": ("5 in 15 minutes and 10 a day", "30 in 15 minutes", "3 and 6 of these", "keeps them out of new browsers, and of no other way"),
    "Logging in": ("and no other", "the secret code", "its PIN", f"{LIMITS.challenge_s} s", "operator who knows the person",
        f"{CHARACTERS_MIN} to {CHARACTERS_MAX} characters", f"less than {GUESSES_MIN} guesses", "her product numbers", "the service's name"),
    "Sessions": (
        f"{LIMITS.idle_s} s after its last request and {LIMITS.session_s} s after its login", "NIST SP 800-63B",
        "as many sessions as she likes", f"within {FRESH_S} s of a login", "The window and the daemon have no sessions",
    ),
    "Access": (*(role for role in RIGHTS), *(right for right in RIGHTS["owner"]), "Fields:", "does not exist"),
    "Keys": (
        "portal.key_file", "HMAC-SHA-256", "SHA-256", "ECDSA", "AES-GCM", "made", "kept", "replaced", "No key is for two things",
        f"RSA keys of {strength.RSA_BITS_MIN} bits", f"`trust.rsa_bits_min = {strength.RSA_BITS_LEAST}`", f"{strength.HASH_BITS_MIN} bits of hash",
    ),
    "Connections": (
        "browsers", "the daemon", "a mail server", "PostgreSQL", "clamd", "back end", "sources", "Nobody else is called.",
        "No address that somebody has typed is ever connected to",
    ),
    "Data": ("| secret |", "| personal |", "| internal |", "| public |", "0600", "0700", "14 days", "Disks and backups", "GDPR"),
    "Parts of others": ("requirements.lock", "within 3 days", "within 14 days", "every 3 months", "within 6 months"),
    "Costly work": ("512 MB", "4 at a time", "a process with a deadline", "10 s for headers, 20 s for bodies"),
    "Logs": ("audit", "with its time in UTC", "standard error", "one JSON object a line", "Nothing is written elsewhere"),
}  # fmt: skip


@pytest.mark.parametrize("section", SAID)
def test_the_documents_say_it(section: str) -> None:
    """Row 6.1: what the standard wants to be written down is, in a section of its own, with the figures of the code."""
    sections = dict(re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n)+)", DECISIONS.read_text(), re.MULTILINE))
    assert sections.keys() == SAID.keys()
    text = " ".join(sections[section].split())
    assert [one for one in SAID[section] if " ".join(one.split()) not in text] == []
