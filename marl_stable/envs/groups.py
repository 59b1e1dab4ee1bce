"""Who belongs together: agents to teams, and agents of one team with the same spaces to groups. NumPy only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from marl_stable.envs.spaces import action_spec, first_category, holds_mask, observation_size
from marl_stable.types import Discrete, EnvSpec, Group, UsageError

MAX_AGENTS = 200

_CHASE: dict[str, tuple[str, ...]] = {"adversary": ("adversary", "leadadversary"), "agent": ("agent",)}
_WAR: dict[str, tuple[str, ...]] = {"red": ("red",), "blue": ("blue",)}

TEAMS: dict[str, dict[str, tuple[str, ...]]] = {
    "mpe2/simple_adversary_v3": _CHASE,
    "mpe2/simple_crypto_v3": {"eve": ("eve",), "alice_bob": ("alice", "bob")},
    "mpe2/simple_push_v3": _CHASE,
    "mpe2/simple_tag_v3": _CHASE,
    "mpe2/simple_world_comm_v3": _CHASE,
    "magent2/adversarial_pursuit_v4": {"predator": ("predator",), "prey": ("prey",)},
    "magent2/battle_v4": _WAR,
    "magent2/battlefield_v5": _WAR,
    "magent2/combined_arms_v6": {"red": ("redmelee", "redranged"), "blue": ("bluemelee", "blueranged")},
    "magent2/tiger_deer_v4": {"deer": ("deer",), "tiger": ("tiger",)},
}
"""Teams of known environments that do not say so themselves: team to the common names of its agents."""


RIVALS = {
    *("classic/chess_v6", "classic/connect_four_v3", "classic/go_v5", "classic/leduc_holdem_v4", "classic/rps_v2"),
    *("classic/texas_holdem_v4", "classic/texas_holdem_no_limit_v6", "classic/tictactoe_v3"),
}
"""Games in which everybody plays for themselves: as one team their mean return would always be 0."""


def agents_of(env: Any, env_id: str) -> tuple[str, ...]:
    """Every agent that `env` can have, in its own order; UsageError where it does not say so, or has too many."""
    try:
        agents = tuple(env.possible_agents)
    except AttributeError:
        raise UsageError(
            f"{env_id} does not say which agents it can have; give it an attribute possible_agents before reset."
        ) from None
    if not agents or len(agents) > MAX_AGENTS:
        raise UsageError(f"{env_id} has {len(agents)} agents; for now from 1 to {MAX_AGENTS} are supported.")
    if not all(isinstance(agent, str) for agent in agents):
        raise UsageError(f"{env_id} names its agents {list(agents[:3])}; agent names must be text such as agent_0.")
    if len(set(agents)) != len(agents):
        raise UsageError(f"{env_id} has possible_agents {list(agents)}; every name must appear once.")
    return agents


def stem(agent: str) -> str:
    """The agent's name before `_number`: `agent_0` and `agent_12` are both `agent`."""
    return re.sub(r"_\d+$", "", agent)


def teams_of(env_id: str, env: Any, agents: Sequence[str]) -> dict[str, str]:
    """The team of every agent: from the tables of known ids, else from `env.teams`, else one team called `team`.

    Raises UsageError where `env.teams` is not {"team": ["agent", ...]} with every agent in exactly one team.
    """
    if env_id in RIVALS:
        return {agent: agent for agent in agents}
    if env_id in TEAMS:
        by_stem = {name: team for team, names in TEAMS[env_id].items() for name in names}
        return {agent: by_stem[stem(agent)] for agent in agents}
    teams = getattr(env, "teams", None)
    if teams is None:
        teams = getattr(getattr(env, "unwrapped", env), "teams", None)
    if teams is None:
        return dict.fromkeys(agents, "team")
    return checked_teams(teams, agents, "the environment's attribute teams")


def groups_of(
    agents: Sequence[str],
    observation_spaces: Mapping[str, Any],
    action_spaces: Mapping[str, Any],
    teams: Mapping[str, str],
    masked_by_info: Collection[str] = (),
) -> tuple[Group, ...]:
    """The groups, in the order of their first agents; UsageError for a space that is not supported.

    A group is masked where the observations of its agents hold their masks, or where one agent is `masked_by_info`.
    """
    spaces = {agent: (teams[agent], observation_spaces[agent], action_spaces[agent]) for agent in agents}
    members = _together(agents, lambda one, other: spaces[one] == spaces[other])
    return tuple(
        _group(name, group, observation_spaces[group[0]], action_spaces[group[0]], teams[group[0]], masked_by_info)
        for name, group in zip(_names(members), members, strict=True)
    )


def regrouped(spec: EnvSpec, teams: Mapping[str, str]) -> EnvSpec:
    """`spec` with its agents in other `teams` (agent to team), and grouped and named accordingly.

    Agents of one group stay together as far as their team does; those of different groups come together where they now
    share a team and did not before, for only then were they kept apart by anything but their spaces.
    """
    home = {agent: group for group in spec.groups for agent in group.agents}

    def alike(one: str, other: str) -> bool:
        a, b = home[one], home[other]
        same_numbers = a._replace(name=b.name, agents=b.agents, team=b.team, terms=b.terms) == b
        return teams[one] == teams[other] and same_numbers and (a.name == b.name or a.team != b.team)

    members = _together(spec.agents, alike)
    groups = (
        home[group[0]]._replace(name=name, agents=tuple(group), team=teams[group[0]], terms=_terms_of(group, home))
        for name, group in zip(_names(members), members, strict=True)
    )
    return spec._replace(groups=tuple(groups))


def _group(
    name: str,
    agents: Sequence[str],
    observation_space: Any,
    action_space: Any,
    team: str,
    masked_by_info: Collection[str],
) -> Group:
    size, action = observation_size(observation_space, agents[0]), action_spec(action_space, agents[0])
    masked = holds_mask(observation_space, action_space, agents[0]) or any(agent in masked_by_info for agent in agents)
    if masked:
        assert isinstance(action, Discrete)
        size += action.n
    return Group(name, tuple(agents), size, action, team, masked, first_category=first_category(observation_space))


def _terms_of(agents: Sequence[str], home: Mapping[str, Group]) -> tuple[str, ...]:
    """Names of the reward terms of agents that come from the groups `home`."""
    return tuple(dict.fromkeys(term for agent in agents for term in home[agent].terms))


def _together(agents: Sequence[str], alike: Callable[[str, str], bool]) -> list[list[str]]:
    """Agents that are `alike`, in the order of their first ones."""
    members: list[list[str]] = []
    for agent in agents:
        found = next((group for group in members if alike(group[0], agent)), None)
        if found is None:
            members.append([agent])
        else:
            found.append(agent)
    return members


def _names(members: Sequence[Sequence[str]]) -> list[str]:
    """Each group's common name, or its first agent's where it has none or shares it with another group."""
    stems = [{stem(agent) for agent in group} for group in members]
    names = [min(found) if len(found) == 1 else group[0] for found, group in zip(stems, members, strict=True)]
    while alike := {name for name, count in Counter(names).items() if count > 1}:
        names = [group[0] if name in alike else name for name, group in zip(names, members, strict=True)]
    return names


def checked_teams(teams: Any, agents: Sequence[str], source: str) -> dict[str, str]:
    """The team of every agent as `teams`, which comes from `source`, has it.

    Raises UsageError where it is not {"team": ["agent", ...]} with every agent in exactly one team.
    """
    form = '{"team": ["agent", ...]}'
    if not isinstance(teams, Mapping) or not all(isinstance(names, list | tuple | set) for names in teams.values()):
        raise UsageError(f"{source} is {teams!r}; it must look like {form}.")
    for team, names in teams.items():
        if not names or not str(team):
            problem = "a team has no name" if names else f"nobody is in the team {team!r}"
            raise UsageError(f"{source} is {teams!r}; {problem}, and it must look like {form}.")
    listed = [(str(agent), str(team)) for team, names in teams.items() for agent in names]
    counts = Counter(agent for agent, _ in listed)
    wrong = [agent for agent in agents if counts[agent] != 1] + [agent for agent in counts if agent not in agents]
    if wrong:
        raise UsageError(
            f"{source} is {teams!r}; every agent of {list(agents)} must be in exactly one team, which does not hold "
            f"for {', '.join(wrong)}."
        )
    return dict(listed)
