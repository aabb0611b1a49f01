"""
Whether what was begun may go on: asked again of all work when something was taken away, so that a suspension, a removal or
a denial stops what it should have refused.
"""

from collections.abc import Callable, Container, Mapping

from signer.batch import Ask
from signer.credential import Credential, Output, Purpose
from signer.errors import Refusal
from signer.policy import Policy
from signer.revocation import Revocations
from signer.steady import Steady


class Still:
    """`suspended`: subjects, as far as the daemon was told."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        credentials: Callable[[], Mapping[str, Credential]],
        suspended: Callable[[], Container[str]],
        revocations: Revocations,
        steady: Steady,
    ) -> None:
        self._policy = policy
        self._credentials = credentials
        self._suspended = suspended
        self._revocations = revocations
        self._steady = steady

    def check(self, ask: Ask) -> None:
        """Raise `Refusal` for what would be refused if it were asked now."""
        ask.identify()
        caller = self._policy().by_name.get(ask.caller.name)
        if caller is None:
            raise Refusal("CALLER_UNKNOWN")
        self._policy().check_credential(caller, ask.group or ask.credential.name)
        credential = self._credentials().get(ask.credential.name)
        if credential is None:
            raise Refusal("CREDENTIAL_UNKNOWN")
        was = ask.credential
        if credential is not was and (credential.certificates, credential.key) != (was.certificates, was.key):
            raise Refusal("CREDENTIAL_CHANGED")
        now = self._steady.latest()
        credential.check(now, Purpose.AUTHENTICATION if ask.output is Output.LOGIN else Purpose.SIGNATURE)
        credential.check_request(ask.output, ask.algorithm)
        if credential.subject in self._suspended():
            raise Refusal("SUBJECT_SUSPENDED")
        self._revocations.check_chain(credential.certificates, now)
