"""MADDPG, MATD3 and IDDPG reach the known answers of the probe games, in a second or two each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.config import default_config, with_measures
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.reward_scale import RewardScale
from marl_stable.config import NetworkConfig
from marl_stable.envs.probe import Aim, Allowed, Ending, Endless, Match, Probe, Recall, Relay, Roles, Silence
from marl_stable.types import Discrete, EnvSpec, Group, PerGroup, Step
from tests.agents.loops import CPU, QUICK, greedy_return, make_ddpg, teach, train
from tests.envs.fakes import Unsaved

GAMMA = 0.9
ALGOS = ("maddpg", "matd3", "iddpg")
MIXED = [("maddpg", True), ("matd3", False), ("iddpg", True), ("iddpg", False)]


def trained(game: type[Probe], algo: str, iterations: int, **settings: Any) -> tuple[MADDPG, Probe]:
    """An agent after `iterations` of 320 steps in 64 copies and 10 updates, the first of them at random."""
    env = game(64, CPU)
    agent = make_ddpg(env, algo, **(QUICK | settings))
    teach(agent, env, iterations)
    return agent, env


@torch.no_grad()
def first_value(agent: MADDPG, env: Probe) -> Tensor:
    """`(A,)` what the critic says of first observations and greedy actions, in its own units."""
    learner = agent.learners["agent"]
    obs = env.reset(99)
    seen = learner.normalized(obs["agent"])
    action = learner.actor.encoded(agent.policy(obs)["agent"].mode())
    joint = torch.cat([seen.flatten(1), action.flatten(1)], dim=1)
    q: Tensor = learner.critic(joint if agent.centralised else torch.cat([seen, action], dim=-1))
    return q.amin(0).mean(0)


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("algo", ALGOS)
def test_actions_follow_observations(algo: str, normalize: bool):
    agent, env = trained(Match, algo, 12, normalize_reward=normalize)
    assert greedy_return(agent, env) == env.best_return
    assert normalize or float(first_value(agent, env)) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("algo", "share"), MIXED)
def test_two_agents_who_see_nothing_take_different_roles(algo: str, share: bool):
    agent, env = trained(Roles, algo, 16, share=share)
    assert greedy_return(agent, env) == env.best_return


NARROW = NetworkConfig(hidden=(8,), activation="relu")


@pytest.mark.parametrize(("game", "iterations"), [(Match, 12), (Roles, 16)])
def test_narrow_networks_find_the_better_action_with_every_seed(game: type[Probe], iterations: int):
    for seed in range(6):
        agent, env = trained(game, "maddpg", iterations, seed=seed, network=NARROW)
        assert greedy_return(agent, env) == env.best_return, seed


def test_the_slope_of_a_critic_that_is_right_may_keep_an_actor_at_the_wrong_action():
    """Why `straight_through` is not the default: what the critic values more is never done."""
    agent, env = trained(Match, "maddpg", 12, seed=3, network=NARROW, discrete_gradient="straight_through")
    assert greedy_return(agent, env) < 0.6
    learner, obs = agent.learners["agent"], torch.tensor([[-1.0], [1.0]])
    seen = learner.normalized(obs.unsqueeze(1)).squeeze(1)
    values = torch.stack([learner.critic(torch.cat([seen, one], dim=1))[0, :, 0] for one in _each_action(2, 2)], dim=1)
    assert torch.equal(values.argmax(1), torch.tensor([0, 1]))
    assert (values.amax(1) - values.amin(1) > 0.8).all()  # of 1


def _each_action(rows: int, n: int) -> Tensor:
    """`(n, rows, n)` one-hot."""
    return torch.eye(n).unsqueeze(1).expand(n, rows, n)


@pytest.mark.parametrize(("algo", "share"), MIXED)
def test_continuous_actions_reach_their_aim_in_any_range(algo: str, share: bool):
    agent, env = trained(Aim, algo, 20, share=share, action_penalty=1e-3, steps_per_update=16)
    assert greedy_return(agent, env) > -0.02  # an action that ignores what it sees loses 0.1


@pytest.mark.parametrize("algo", ["maddpg", "iddpg"])
def test_masks_are_obeyed_and_seen(algo: str):
    agent, env = trained(Allowed, algo, 25)
    assert agent.learners["agent"].replay.reward[: agent.t].min() >= 0  # nothing forbidden was ever done
    assert greedy_return(agent, env) == env.best_return


@pytest.mark.parametrize("algo", ["maddpg", "iddpg"])
def test_a_turn_gets_what_is_paid_after_it(algo: str):
    agent, env = trained(Relay, algo, 20)
    assert greedy_return(agent, env) == env.best_return
    assert float(first_value(agent, env)[0]) == pytest.approx(env.value(GAMMA), rel=0.15)  # whose turn is the first


@pytest.mark.parametrize(("algo", "game"), [("maddpg", Endless), ("iddpg", Ending)])
def test_a_time_limit_is_worth_for_ever_and_an_end_nothing(algo: str, game: type[Probe]):
    agent, env = trained(game, algo, 14, tau=0.2, lr=1e-2, steps_per_update=12)
    assert env.value(GAMMA) == pytest.approx(10.0 if game is Endless else 4.0951)
    assert float(first_value(agent, env).mean()) == pytest.approx(env.value(GAMMA), rel=0.1)


def test_credit_goes_back_to_what_was_done_a_step_before():
    """Of what leads to it the critic says what it is worth, for either action."""
    agent, env = trained(Recall, "maddpg", 25)
    learner = agent.learners["agent"]
    for sign in (-1.0, 1.0):
        seen = learner.normalized(torch.full((2, 1, 1), sign))[:, 0]
        with torch.no_grad():
            q = learner.critic(torch.cat([seen, torch.eye(2)], dim=1))[0, :, 0]
        right = int(sign > 0)
        assert float(q[right]) == pytest.approx(env.value(GAMMA), abs=0.1)
        assert float(q[1 - right]) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("algo", ["maddpg", "iddpg"])
def test_without_any_reward_nothing_breaks(algo: str):
    agent, env = trained(Silence, algo, 5, normalize_reward=True)
    assert first_value(agent, env).abs().max() < 0.1
    for part in agent.learners["agent"].state_dict().values():
        assert all(x.isfinite().all() for key, x in part.items() if isinstance(x, Tensor))


@pytest.mark.parametrize("game", [Match, Aim], ids=lambda game: game.__name__)
def test_the_plain_algorithm_learns_too(game: type[Probe]):
    plain = with_measures(default_config("maddpg"), "none")
    measures = {"normalize_obs", "normalize_reward", "max_grad_norm", "action_penalty", "huber"}
    settings = {name: getattr(plain, name) for name in measures}
    network = NetworkConfig(hidden=(32,), norm="none", final_init=None, activation="relu")
    agent, env = trained(game, "maddpg", 20, network=network, steps_per_update=16, **settings)
    assert greedy_return(agent, env) > env.best_return - 0.02


# ---- normalised rewards must not change what is best


class Leave(Unsaved):
    """One agent, who in each step may stay, which pays `stay`, or leave, which pays `leave` and truly ends the episode.

    After six steps a time limit cuts the episode off.
    """

    def __init__(self, stay: float, leave: float, copies: int = 32) -> None:
        group = Group("agent", ("agent_0",), 1, Discrete(2), "team")
        self.spec, self.num_envs, self.device = EnvSpec("leave", ("agent_0",), (group,)), copies, CPU
        self.replay_differs: tuple[int, ...] = ()
        self.stay, self.leave = stay, leave

    def reset(self, seed: int) -> PerGroup:
        self.t = torch.arange(self.num_envs) % 6
        return {"agent": torch.zeros(self.num_envs, 1, 1)}

    def step(self, action: PerGroup) -> Step:
        leaves = action["agent"] == 1
        self.t += 1
        cut = ~leaves & (self.t == 6).unsqueeze(1)
        over = (leaves | cut)[:, 0]
        self.t[over] = 0
        obs = {"agent": torch.zeros(self.num_envs, 1, 1)}
        reward = torch.where(leaves, self.leave, self.stay)
        alive = torch.ones_like(leaves)
        return Step(obs, obs, {"agent": reward}, {"agent": leaves}, {"agent": cut}, {"agent": alive}, over)


def leaves(stay: float, leave: float, normalize: bool) -> bool:
    """Whether the greedy policy leaves."""
    env = Leave(stay, leave)
    agent = make_ddpg(env, normalize_reward=normalize, lr=5e-3, tau=0.1, gamma=0.8)
    obs = train(agent, env, env.reset(1), 22)
    return bool(agent.policy(obs)["agent"].mode()[0, 0] == 1)


@pytest.mark.parametrize(("stay", "leave", "best"), [(-1.0, -2.0, True), (1.0, 3.0, False)])
def test_normalised_rewards_leave_the_best_policy_as_it_is_where_episodes_end(
    stay: float, leave: float, best: bool, monkeypatch: pytest.MonkeyPatch
):
    """For ever costs 5 and leaving 2, so one leaves; for ever brings 5 and leaving 3, so one stays."""
    assert leaves(stay, leave, normalize=False) is best
    assert leaves(stay, leave, normalize=True) is best
    monkeypatch.setattr(RewardScale, "terminal_value", lambda self: torch.zeros(1))
    assert leaves(stay, leave, normalize=True) is not best  # or the game would prove nothing
