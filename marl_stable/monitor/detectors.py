"""Numbers to symptoms: what a user would see, named with its agent and its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from marl_stable.types import Discrete, EnvSpec, has_choice

SAME_ACTION_SHARE = 0.95  # discrete: one action makes up this share of everything an agent did
STUCK_DIMENSIONS_SHARE = 0.8  # continuous: this share of an agent's dimensions no longer varies
PERSISTENCE = 2  # readings in a row, so that one odd batch is no alarm


class Incident(NamedTuple):
    """One line of `incidents.jsonl`: what was seen, where, the number and its limit, and what was done about it."""

    steps: int
    kind: str
    where: dict[str, Any]
    value: float
    limit: float
    action: str
    evidence: dict[str, Any]


class RepeatedAction:
    """Warns of agents that do the same whatever they see: by what they did, not by saturation alone.

    Saturation is not even a symptom: bang-bang policies are saturated and healthy. What counts is that executed actions
    hardly vary over many copies and observations. Responsiveness, repeat ratio and saturation go along as evidence.
    An agent is named once, and again only after it has recovered in between.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self.limits = {
            agent: SAME_ACTION_SHARE if isinstance(group.action, Discrete) else STUCK_DIMENSIONS_SHARE
            for group in spec.groups
            for agent in group.agents
            if has_choice(group.action)
        }
        self.readings = dict.fromkeys(self.limits, 0)

    def __call__(
        self, steps: int, sameness: Mapping[str, float], evidence: Mapping[str, dict[str, float]]
    ) -> list[Incident]:
        """Incidents for agents that have now repeated themselves twice in a row; both mappings are keyed by agent."""
        found = []
        for agent, limit in self.limits.items():
            repeats = sameness[agent] >= limit
            self.readings[agent] = self.readings[agent] + 1 if repeats else 0
            if self.readings[agent] == PERSISTENCE:
                where, numbers = {"agent": agent}, evidence.get(agent, {})
                found.append(Incident(steps, "repeated_action", where, sameness[agent], limit, "warned", numbers))
        return found

    def repeating(self) -> list[str]:
        """Agents that repeat themselves by the last readings."""
        return [agent for agent, count in self.readings.items() if count >= PERSISTENCE]

    def state_dict(self) -> dict[str, Any]:
        """Readings so far."""
        return {"readings": dict(self.readings)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.readings.update(state["readings"])


def in_words(incident: Incident) -> str:
    """An incident as one sentence for the terminal."""
    where = ", ".join(f"{key} {value}" for key, value in incident.where.items())
    done = f"{incident.kind}/{incident.action}"
    told = SENTENCES.get(done) or SENTENCES.get(incident.kind, "{kind} ({where})") + DONE[incident.action]
    fields = {"where": where, "kind": incident.kind.replace("_", " "), "value": incident.value, "limit": incident.limit}
    evidence = ", ".join(
        f"{key.replace('_', ' ')} {value:.3g}" for key, value in incident.evidence.items() if isinstance(value, float)
    )
    reason = incident.evidence.get("reason", "")
    parts = {"place": f"; {where}" if where else "", "evidence": f"; {evidence}" if evidence else ""}
    sentence = told.format(**fields, **parts, reason=reason)
    return f"at {incident.steps:,} steps {sentence}."


SENTENCES = {
    "repeated_action": "{where} repeats one action ({value:.0%} the same{evidence})",
    "worker_failure/restarted": "{reason}; restarted, the episodes it cost begin anew (failure {value:.0f} of "
    "{limit:.0f} that are survived)",
    "worker_failure/stopped": "{reason}; no more restarts (failure {value:.0f} of {limit:.0f} that are survived)",
    "replay_differs": "{where} could not be replayed to where it was, and begins a new episode",
    "non_finite_gradient": "{value:.1%} of gradients were not finite ({where})",
    "gradient_spike": "gradients spiked ({where}; {value:.3g}{evidence})",
    "non_finite_observation": "{value:.0f} observations were not finite ({where})",
    "non_finite_reward": "{value:.0f} rewards were not finite ({where})",
    "collapse": "{reason} ({value:.3g}, and the limit is {limit:.3g}{place}{evidence})",
}
DONE = {
    "none": "; nothing was done",
    "warned": "",
    "skipped_update": "; those updates were skipped",
    "excluded": "; what they belong to is left out of learning",
    "lowered_rate": "; its steps are smaller from now on",
    "reset_moments": "; its optimiser forgets them",
    "restored": "; back to the last healthy state, with smaller steps",
    "stopped": "; the run stops",
    "restarted": "",
}
