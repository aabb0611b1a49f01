"""What the tests of every part of the service use."""

import sys
from typing import Any

import pytest

from signer.__main__ import main
from tests.signer.access.calls import Done, Paraph


@pytest.fixture
def paraph(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Paraph:
    """`paraph WORDS...` in this process, which keeps its limits: those of the daemons that it starts come from it."""
    monkeypatch.setattr("pool.dump.forbid", lambda: None)

    def run(*words: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["paraph", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return Done(int(end.value.code or 0), out, err)

    return run
