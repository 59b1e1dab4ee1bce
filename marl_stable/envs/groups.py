"""Who belongs together: agents to teams, and agents of one team with the same spaces to groups. NumPy only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from marl_stable.envs.spaces import action_spec, observation_size
from marl_stable.types import Group, UsageError

_CHASE = {"adversary": ("adversary", "leadadversary"), "agent": ("agent",)}

TEAMS: dict[str, dict[str, tuple[str, ...]]] = {
    "mpe2/simple_adversary_v3": _CHASE,
    "mpe2/simple_crypto_v3": {"eve": ("eve",), "alice_bob": ("alice", "bob")},
    "mpe2/simple_push_v3": _CHASE,
    "mpe2/simple_tag_v3": _CHASE,
    "mpe2/simple_world_comm_v3": _CHASE,
}
"""Teams of known environments that do not say so themselves: team to the common names of its agents."""


def stem(agent: str) -> str:
    """The agent's name before `_number`: `agent_0` and `agent_12` are both `agent`."""
    return re.sub(r"_\d+$", "", agent)


def teams_of(env_id: str, env: Any, agents: Sequence[str]) -> dict[str, str]:
    """The team of every agent: from the table of known ids, else from `env.teams`, else one team called `team`.

    Raises UsageError where `env.teams` is not {"team": ["agent", ...]} with every agent in exactly one team.
    """
    if env_id in TEAMS:
        by_stem = {name: team for team, names in TEAMS[env_id].items() for name in names}
        return {agent: by_stem[stem(agent)] for agent in agents}
    teams = getattr(env, "teams", None)
    if teams is None:
        teams = getattr(getattr(env, "unwrapped", env), "teams", None)
    return dict.fromkeys(agents, "team") if teams is None else _checked_teams(teams, agents)


def groups_of(
    agents: Sequence[str],
    observation_spaces: Mapping[str, Any],
    action_spaces: Mapping[str, Any],
    teams: Mapping[str, str],
) -> tuple[Group, ...]:
    """The groups, in the order of their first agents; UsageError for a space that is not supported."""
    members: list[list[str]] = []
    for agent in agents:
        kind = (teams[agent], observation_spaces[agent], action_spaces[agent])
        for group in members:
            first = group[0]
            if kind == (teams[first], observation_spaces[first], action_spaces[first]):
                group.append(agent)
                break
        else:
            members.append([agent])
    return tuple(
        Group(
            name=name,
            agents=tuple(group),
            obs_size=observation_size(observation_spaces[group[0]], group[0]),
            action=action_spec(action_spaces[group[0]], group[0]),
            team=teams[group[0]],
        )
        for name, group in zip(_names(members), members, strict=True)
    )


def _names(members: Sequence[Sequence[str]]) -> list[str]:
    """Each group's common name, or its first agent's where it has none or shares it with another group."""
    stems = [{stem(agent) for agent in group} for group in members]
    names = [min(found) if len(found) == 1 else group[0] for found, group in zip(stems, members, strict=True)]
    while alike := {name for name, count in Counter(names).items() if count > 1}:
        names = [group[0] if name in alike else name for name, group in zip(names, members, strict=True)]
    return names


def _checked_teams(teams: Any, agents: Sequence[str]) -> dict[str, str]:
    form = '{"team": ["agent", ...]}'
    if not isinstance(teams, Mapping) or not all(isinstance(names, list | tuple | set) for names in teams.values()):
        raise UsageError(f"the environment's attribute teams is {teams!r}; it must look like {form}.")
    listed = [(str(agent), str(team)) for team, names in teams.items() for agent in names]
    counts = Counter(agent for agent, _ in listed)
    wrong = [agent for agent in agents if counts[agent] != 1] + [agent for agent in counts if agent not in agents]
    if wrong:
        raise UsageError(
            f"the environment's attribute teams is {teams!r}; every agent of {list(agents)} must be in exactly one "
            f"team, which does not hold for {', '.join(wrong)}."
        )
    return dict(listed)
