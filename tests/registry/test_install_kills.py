"""An installation that is killed leaves all or nothing, and the next one finishes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schnet_ase.registry.card import Card
from schnet_ase.registry.install import install_entry
from tests.support.installs import hash_of, is_installed, nothing_installed, size
from tests.support.paths import ROOT
from tests.support.server import Server

pytestmark = pytest.mark.usefixtures("places")
KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from schnet_ase.registry.install import install_entry
from schnet_ase.registry.lookup import list_models, user_models

source = Path(sys.argv[1])
expected = {file.name: file.read_bytes() for file in source.iterdir()}
events = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")

def child(step):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in events:
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
    pid = os.fork()
    if pid == 0:
        if step is not None:
            sys.addaudithook(hook)
        install_entry("ethanol", source)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def state():
    folder = user_models() / "ethanol"
    if not folder.exists():
        assert list_models() == []
        return "nothing"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == expected
    return "all"

states = []
while True:
    shutil.rmtree(user_models(), ignore_errors=True)
    status = child(len(states))
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    states.append(state())
    assert child(None) == 0, "an install after the kill"
    assert state() == "all"
print(*states)
"""


def script(code: str, tmp_path: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "SCHNET_ASE_MODELS": "",
        "no_proxy": "*",
    }
    # The code is run where the shipped entries are not those of the tests: only `ethanol` counts.
    code = "from pathlib import Path; from schnet_ase.registry import lookup; lookup.SHIPPED = Path('nowhere')\n" + code
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of itself")
def test_killed_before_any_step_leaves_all_or_nothing(zoo: Card, tmp_path: Path) -> None:
    process = script(KILLED_AT_EVERY_STEP, tmp_path, zoo.path)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    states = out.split()
    assert states == sorted(states, reverse=True), "once there, it stays"
    assert states.count("nothing") > 4 * len(zoo.files)  # each file: read, written, hashed, renamed
    assert "all" in states


def test_killed_in_the_middle_of_a_file_goes_on_there(server: Server, zoo: Card, tmp_path: Path) -> None:
    server.break_after, server.stall = 1000, True
    code = "import sys; from schnet_ase.registry.install import install_entry; install_entry('ethanol', *sys.argv[1:2],"
    process = script(f"{code} sha256=sys.argv[2])", tmp_path, f"{server.address}/ethanol", hash_of(zoo))
    assert server.stalled.wait(120)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert nothing_installed()
    server.break_after = None
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    assert is_installed(zoo)
    # What the killed process had received and not yet written came again, and no more.
    assert size(zoo) <= server.total() <= size(zoo) + 1000
