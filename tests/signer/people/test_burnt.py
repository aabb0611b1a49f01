"""After a restore nothing of a person's counts twice that may have been used in the range that is lost."""

import uuid
from pathlib import Path

from tests.signer.access.calls import Caller, digests, signed, statuses
from tests.signer.people.persons import Town, redeem, terms


def test_a_restore_burns_authorisations(tmp_path: Path) -> None:
    """
    An authorisation that was open when the backup was made, and was redeemed afterwards, is not open again after the
    backup was put back; nor are a one-time code that was used, and what was sent. A new one is as good as ever.
    """
    with Town() as town:
        ada, cleo = town.enrol("ada", "hotp"), town.enrol("cleo", "totp")
        wanted = digests(2)
        open_, used = town.reference(ada, terms(wanted)), town.reference(ada, terms(wanted))
        backup = town.rig.directory / "backup.sqlite"
        done = town.rig.command("backup", "--config", town.rig.config, backup)
        assert done.returncode == 0, done.stderr
        otp = cleo.otp()
        assert town.authorise(cleo, terms(wanted, "cleo"), otp=otp).code == "OK"
        assert statuses(redeem(town, used, wanted)) == ["SIGNED"] * 2
        town.rig.stop()
        done = town.rig.command("restore", "--config", town.rig.config, "--reason", "the disk was lost", backup)
        assert done.returncode == 0, done.stderr
        town.rig.launch()
        town.rig.wait_serving()
        town.callers = {name: Caller(town.rig, name) for name in town.rig.callers}
        before = signed(town.rig)
        for reference in (open_, used):
            assert redeem(town, reference, wanted, request_id=str(uuid.uuid4())).reason == "AUTHZ_UNKNOWN"
        assert town.authorise(cleo, terms(wanted, "cleo"), otp=otp).reason in {"OTP_USED", "OTP_INCORRECT"}
        assert signed(town.rig) == before
        assert statuses(redeem(town, town.reference(ada, terms(wanted)), wanted)) == ["SIGNED"] * 2
