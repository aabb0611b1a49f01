"""The committed stubs are what the .proto files give."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTOS = sorted(path.name for path in (ROOT / "proto").glob("*.proto"))


def test_stubs_match_the_contract(tmp_path: Path) -> None:
    """Generated anew from proto/, every file of signer/v1 is byte for byte the committed one, and none is left over."""
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "pyi")]
    sources = [f"signer/v1/{name}" for name in PROTOS]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Isigner/v1=proto", *outputs, *sources]
    subprocess.run(command, cwd=ROOT, check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "signer" / "v1").iterdir()}
    committed = {path.name: path.read_text() for path in (ROOT / "signer" / "v1").glob("*.py*")}
    del committed["__init__.py"]
    assert made.keys() == committed.keys()
    for name, text in made.items():
        assert committed[name] == text, f"{name}: run `make proto`"


@pytest.mark.parametrize("name", PROTOS)
def test_contract_compiles_alone(tmp_path: Path, name: str) -> None:
    """Each .proto file compiles without a warning, for users of other languages."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={tmp_path}", name]
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True)
    assert done.stderr == ""
