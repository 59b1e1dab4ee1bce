"""What is advised to a run: what changes it, in the direction of the remedy's sentence."""

from __future__ import annotations

from typing import Any

import pytest

from marl_stable import configs
from marl_stable.agents.config import ALGORITHMS, default_config
from marl_stable.config import RunConfig
from marl_stable.conversion import leaves
from marl_stable.diagnosing import _dotted
from marl_stable.investigate.remedies import applied
from marl_stable.monitor.advice import Turned, settings, slower
from marl_stable.monitor.case import CAUSES, Cause, Hit, findings
from tests.monitor.causes.recordings import case

MORE, LESS = Turned(3.0, 0.03, 0.1), Turned(0.5, 10, 1)


def written(run: RunConfig) -> dict[str, Any]:
    """As a diagnosis reads it."""
    return dict(_dotted(configs.parse(configs.write(run), "config.yaml")))


RUNS = {name: RunConfig(algo=default_config(name)) for name in ALGORITHMS}
RUNS |= {f"{name} without measures": configs.resolve({"algo": {"name": name}, "measures": "none"}) for name in RUNS}


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
@pytest.mark.parametrize("kind", [kind for kind in CAUSES.values() if kind.config], ids=lambda kind: kind.name)
def test_what_is_advised_changes_the_run_and_can_be_set(kind: Cause, run: RunConfig) -> None:
    advised = settings(written(run), kind.config)
    changed = dict(leaves(applied(run, advised)))
    present = dict(leaves(run))
    for key in advised:
        common = key.replace("critic_network", "network")
        assert changed[key] not in (present[key], present[common])


@pytest.mark.parametrize(
    ("turned", "present", "advised"),
    [
        (MORE, None, 0.03),
        (MORE, 0, 0.03),
        (MORE, 0.001, 0.03),
        (MORE, 0.02, 0.06),
        (MORE, 0.05, 0.1),
        (MORE, 0.1, 0.1),
        (MORE, 0.5, 0.5),
        (LESS, "auto", 10),
        (LESS, 40, 10),
        (LESS, 10, 5),
        (LESS, 2, 1),
        (LESS, 1, 1),
        (Turned(0.1, 1e-3, 0.0), 0.0, 0.0),
        (Turned(0.0, 1e-8, 1e-8), 1e-5, 1e-8),
        (Turned(0.0, 1e-8, 1e-8), 1e-10, 1e-10),
    ],
)
def test_a_setting_goes_one_way(turned: Turned, present: Any, advised: float) -> None:
    assert turned.of(present) == pytest.approx(advised)
    assert type(turned.of(present)) is type(advised)


@pytest.mark.parametrize("kind", CAUSES.values(), ids=list(CAUSES))
@pytest.mark.parametrize("present", [1e-12, 1e-4, 0.003, 0.01, 0.1, 0.7, 1, 3, 40, 1e6])
def test_no_advice_goes_the_wrong_way(kind: Cause, present: float) -> None:
    for key, turned in kind.config.items():
        if isinstance(turned, Turned):
            had = int(present) if isinstance(turned.start, int) else present
            advised = settings({key: had}, {key: turned}).get(key, had)
            assert advised >= had if turned.factor > 1 else advised <= had, key


def test_a_network_with_a_setting_of_its_own_is_advised_that_one() -> None:
    config = {"algo.network.norm": "layer", "algo.critic_network.norm": "none", "algo.name": "mappo"}
    norm = {"algo.network.norm": "layer"}
    assert settings(config, norm) == settings(config, norm, "actor") == {}
    assert settings(config, norm, "critic") == {"algo.critic_network.norm": "layer"}
    assert settings(config | {"algo.critic_network.norm": None}, {"algo.critic_network.norm": "layer"}) == {}


def test_what_an_algorithm_does_not_have_is_not_advised_and_a_loop_of_which_nothing_is_known_is() -> None:
    wanted = {"algo.tau": Turned(0.5, 0.005, 0.0), "algo.clip_value": None, "algo.target_kl": 0.02}
    assert settings({"algo.name": "mappo"}, wanted) == {"algo.target_kl": 0.02}
    assert settings({"loop": "own", "algo.tau": 0.002}, wanted) == wanted | {"algo.tau": 0.001}


def test_a_smaller_step_size_is_that_of_the_network() -> None:
    both = {"algo.lr": 1e-3, "algo.actor_lr": 2e-4}
    assert settings(both, slower(both, "actor")) == {"algo.actor_lr": 6e-5}
    assert settings(both, slower(both, "critic")) == {"algo.lr": 3e-4}
    assert slower({}, "actor") == {}


def test_the_remedy_of_a_run_that_has_all_settings_says_what_is_left() -> None:
    kind = CAUSES["dormant_units"]._replace(look=lambda _: [Hit(0.6, 0, {"layer": "hidden.0"}, {"dormant": 0.9})])
    kind = kind._replace(says="{dormant}.")
    known = written(RUNS["mappo"])
    (found,) = findings(case(config=known), kind)
    assert (found.config, found.remedy) == ({}, kind.otherwise)
    (found,) = findings(case(config=known | {"algo.network.activation": "relu"}), kind)
    assert (found.config, found.remedy) == ({"algo.network.activation": "tanh"}, kind.remedy)
    (found,) = findings(
        case(config=known), kind._replace(look=lambda _: [Hit(0.6, 0, {}, {"dormant": 1.0}, config={})])
    )
    assert found.remedy == kind.remedy  # nothing was to be set
