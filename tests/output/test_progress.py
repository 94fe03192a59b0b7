"""Progress where there is no terminal: a line now and then, whatever the pace."""

import itertools

from schnet_ase.output import progress
from schnet_ase.output.progress import Progress


def test_a_standstill_says_so(monkeypatch, capsys):
    seconds = itertools.count(step=2 * progress.SECONDS_BETWEEN_LINES)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with Progress(10, "runs", "picosecond") as shown:
        shown.update(4)
        shown.update(0)
        shown.update(2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"runs: {n}/10 picoseconds" for n in (4, 4, 6)]
    assert lines[1].endswith("0.0/s, ? left")
