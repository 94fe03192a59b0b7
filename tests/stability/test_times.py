"""Times per step, which no test knows: only that each model has its own."""

from schnet_ase.stability.times import member_times
from tests.support.entries import make_entry


def test_every_member_and_the_yardstick_are_timed(tmp_path):
    card = make_entry(tmp_path)
    times = member_times(card)
    assert len(times.members) == 3
    assert all(t > 0.0 for t in (*times.members, times.yardstick))
