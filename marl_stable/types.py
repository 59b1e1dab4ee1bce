"""The words every room shares: what an environment looks like, what one step carries, and which errors a user meets.

Shapes: E environment copies, A agents of one group, O observation features, D action features, K reward terms. Torch
is imported for type checkers only, so that the command line can use these names without paying for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

PerGroup: TypeAlias = "dict[str, Tensor]"
"""One tensor per group; the order of the keys is the layout of joint vectors."""


class UsageError(Exception):
    """Something the user can mend: one sentence that names the thing, the value and the remedy. Exits 2."""


class EnvironmentFailure(Exception):
    """An environment broke its contract or raised while training was under way. Everything is saved; exits 3."""


class Stopped(Exception):
    """The guard ends a run under way, for the reason given. Everything is saved; exits 3."""


class Discrete(NamedTuple):
    """One of ``n`` actions, numbered from 0 here and from ``start`` in the environment, which has its own ``dtype``."""

    n: int
    start: int = 0
    dtype: str = "int64"


class MultiDiscrete(NamedTuple):
    """Several choices at once: choice k is one of ``n[k]``, numbered from 0 here and from ``start[k]`` outside.

    ``shape`` is the environment's (() means flat, or with ``scalar`` an array without axes), ``dtype`` that of its
    numbers.
    """

    n: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...] = ()
    scalar: bool = False
    dtype: str = "int64"


class Box(NamedTuple):
    """A vector of ``len(low)`` numbers, each between its own bounds.

    ``shape`` is the environment's (() means flat, or with ``scalar`` an array without axes), ``dtype`` that of its
    numbers: where it has whole ones alone, actions are rounded on their way to it.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...] = ()
    scalar: bool = False
    dtype: str = "float32"


ActionSpec: TypeAlias = Discrete | MultiDiscrete | Box


def has_choice(action: ActionSpec) -> bool:
    """Whether there is more than one action."""
    return isinstance(action, Box) or max(action.n if isinstance(action, MultiDiscrete) else (action.n,)) > 1


class Group(NamedTuple):
    """Agents of one team with the same spaces; everything about them is batched along the agent axis.

    ``masked``: the last ``action.n`` of the ``obs_size`` features are 1 for each legal action and 0 for the others, so
    that masks travel, are stored and are replayed with what they belong to. ``terms``: names of the parts that the
    environment reports these agents' rewards to be the sum of; none where it reports none. ``first_category``: where
    the environment's observation is one category, the number of the first, whose feature is the first; else None.
    """

    name: str
    agents: tuple[str, ...]
    obs_size: int
    action: ActionSpec
    team: str
    masked: bool = False
    terms: tuple[str, ...] = ()
    first_category: int | None = None


def legal_features(group: Group) -> int:
    """How many of the group's observation features, the last ones, say which actions are legal."""
    return group.action.n if group.masked and isinstance(group.action, Discrete) else 0


def comparable(group: Group) -> Group:
    """`group` without what networks do not depend on and runs of before did not keep: how the environment writes it."""
    action = group.action
    if isinstance(action, Discrete):
        return group._replace(first_category=None, action=action._replace(dtype=""))
    return group._replace(first_category=None, action=action._replace(dtype="", scalar=False))


class EnvSpec(NamedTuple):
    """What a policy must know of an environment. ``agents`` keeps the environment's own order.

    ``turn_based``: in each step one agent acts; only its ``Step.alive`` is true. The others' rewards count all the
    same: they belong to the last turn of each.
    """

    id: str
    agents: tuple[str, ...]
    groups: tuple[Group, ...]
    turn_based: bool = False

    @property
    def teams(self) -> tuple[str, ...]:
        """Names of the teams, in order of first appearance."""
        return tuple(dict.fromkeys(group.team for group in self.groups))


class Step(NamedTuple):
    """What one call of ``step`` returns, for every copy at once.

    ``obs`` is what to act on next: already the first observation of a new episode where one ended. ``next_obs`` is
    what the last action led to, never overwritten by the automatic reset. Where no copy's episode ended,
    ``next_obs is obs``: storage then keeps one of them.
    """

    obs: PerGroup  # (E, A, O) float32
    next_obs: PerGroup  # (E, A, O) float32
    reward: PerGroup  # (E, A) float32, each agent's own
    terminated: PerGroup  # (E, A) bool: the agent's world ended; nothing follows, no bootstrap
    truncated: PerGroup  # (E, A) bool: the agent was cut off; its value goes on
    alive: PerGroup  # (E, A) bool: the agent acted in this step
    done: Tensor  # (E,) bool: the copy's episode is over for all agents and a new one has begun
    terms: PerGroup = {}  # noqa: RUF012 - (E, A, K) float32: `reward` by term, of groups that have terms
    missing: PerGroup = {}  # noqa: RUF012 - (E, A) bool, {} if nothing: what an agent's last turn brought is not known


def spec_to_dict(spec: EnvSpec) -> dict[str, Any]:
    """`spec` as plain types, as checkpoints keep it."""
    groups = []
    for group in spec.groups:
        action: dict[str, Any] = {key: _plain(value) for key, value in group.action._asdict().items()}
        names = {"agents": list(group.agents), "terms": list(group.terms)}
        groups.append(group._asdict() | names | {"action": action})
    return {"id": spec.id, "agents": list(spec.agents), "groups": groups, "turn_based": spec.turn_based}


def spec_from_dict(plain: dict[str, Any]) -> EnvSpec:
    """The inverse of :func:`spec_to_dict`."""
    groups = []
    for entry in plain["groups"]:
        names = {"agents": tuple(entry["agents"]), "terms": tuple(entry.get("terms", ()))}
        groups.append(Group(**(entry | names | {"action": _action_spec(entry["action"])})))
    return EnvSpec(plain["id"], tuple(plain["agents"]), tuple(groups), plain.get("turn_based", False))


def _action_spec(plain: dict[str, Any]) -> ActionSpec:
    if isinstance(plain.get("n"), int):
        return Discrete(**plain)
    vectors: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return MultiDiscrete(**vectors) if "n" in vectors else Box(**vectors)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
