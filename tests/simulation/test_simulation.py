"""Each image has exactly one row, whatever befalls the runs: a thousand schedules, from seeds.

``make simulate SEEDS=100000`` does as many as are asked for.
"""

import pytest

from tests.simulation import stand_ins
from tests.simulation.__main__ import simulate_seeds
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.scenario import draw_scenario
from tests.simulation.simulation import Report, simulate

_SEEDS, _AT_ONCE = 1000, 100
# Seeds in which every mutant breaks a rule.
_ENOUGH = 300


def explained(report: Report) -> str:
    seed = report.scenario.seed
    again = f"SEEDS=1 FIRST={seed} python -m tests.simulation"
    return "\n".join([f"seed {seed}: {again}", *report.violations, report.story])


@pytest.mark.parametrize("first", range(0, _SEEDS, _AT_ONCE))
def test_each_image_has_exactly_one_row_whatever_befalls_the_runs(first: int) -> None:
    reports = simulate_seeds(first, _AT_ONCE)
    assert len(reports) == _AT_ONCE
    assert sum(report.injected.total() for report in reports) > _AT_ONCE, "hardly anything befell"
    for report in reports:
        assert not report.violations, explained(report)


def test_a_seed_decides_everything() -> None:
    with stand_ins.in_place():
        stories = {simulate(draw_scenario(21)).story for _ in range(2)}
    assert len(stories) == 1


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_protocol_with_one_rule_less_is_caught(mutant: Mutant) -> None:
    with stand_ins.in_place(), mutant.in_place():
        found = (simulate(draw_scenario(seed)).violations for seed in range(_ENOUGH))
        assert any(found), f"{mutant.name}: nothing was broken in {_ENOUGH} schedules"
