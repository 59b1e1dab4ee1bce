"""Every algorithm's settings, on one page. Imports no torch: the command line shows and checks them without it.

Defaults were compared one at a time on three tasks; `benchmarks/ablation.py` repeats the comparison.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, TypeVar

from marl_stable.config import LOG_STD_MAX, LOG_STD_MIN, AlgoConfig, NetworkConfig, NetworkOverride
from marl_stable.conversion import require, unknown
from marl_stable.types import UsageError

CENTRAL = {"ippo": "mappo", "iddpg": "maddpg or matd3"}
"""Which algorithms are the same, but for critics that see all agents."""


@dataclass(frozen=True)
class ActorCriticConfig(AlgoConfig, ABC):
    """Settings that every actor-critic algorithm here has."""

    gamma: float | Literal["auto"] = "auto"
    """Discount per step, in turn-based play per own turn. auto: 1 - 1.25/horizon, at most 0.995, from the length of
    random episodes."""
    lr: float = 4e-3
    """Step size of Adam, actor and critic. Too large: saturated actions, diverging critic; too small: no learning."""
    actor_lr: float | None = None
    """Step size of the actor; unset: `lr`."""
    critic_lr: float | None = None
    """Step size of the critic; unset: `lr`."""
    share: bool = True
    """Agents of a group share one actor that is told which agent it is; off: one actor each."""
    critic_input: Literal["concatenate", "pool"] = "concatenate"
    """How critics get what all agents see (and do). concatenate: side by side. pool: each agent's own and each group's
    mean over who is there, behind encoders that are the critic's first hidden layer (Deep Sets): about as large for
    many agents as for few, and the order of others means nothing. Not for IPPO and IDDPG."""
    max_grad_norm: float | Literal["adaptive"] | None = "adaptive"
    """Limit of the gradient's L2 norm, per network and agent. adaptive: follows the run's own recent norms."""
    lr_schedule: Literal["constant", "linear", "cosine", "kl"] = "linear"
    """How the step size moves over the run; linear and cosine take the entropy bonus down as well. kl: halved when
    updates move the policy too far, raised when too little, never above `lr`."""
    normalize_obs: bool = True
    """Running normalisation of observations, robust to outliers, frozen within an iteration."""
    normalize_reward: bool = False
    """Divides rewards by a robust running scale before anything learns from them."""
    normalize_value: bool = True
    """The critic predicts returns in units of their running deviation."""
    action_penalty: float = 0.0
    """Weight of the squared pre-tanh action (or centred logits) in the actor's loss: keeps actions off their bounds."""
    weight_decay: float = 0.0
    """Decoupled L2 (AdamW) on weight matrices, in units of the step size."""
    l1: float = 0.0
    """Decoupled L1 on weight matrices, in units of the step size."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's two running moments."""
    adam_eps: float = 1e-8
    """Adam's floor. Above 1e-7 it freezes actors whose gradient has become small."""
    network: NetworkConfig = NetworkConfig()
    actor_network: NetworkOverride = NetworkOverride()
    critic_network: NetworkOverride = NetworkOverride()

    def __post_init__(self) -> None:
        require(self.gamma == "auto" or 0 <= self.gamma <= 1, "algo.gamma", self.gamma, "auto or from 0 to 1")
        for key in ("lr", "actor_lr", "critic_lr"):
            value = getattr(self, key)
            require(value is None or value > 0, f"algo.{key}", value, "positive")
        limit = self.max_grad_norm
        require(
            limit is None or limit == "adaptive" or limit > 0, "algo.max_grad_norm", limit, "adaptive, none or positive"
        )
        for key in ("action_penalty", "weight_decay", "l1"):
            require(getattr(self, key) >= 0, f"algo.{key}", getattr(self, key), "0 or positive")
        require(all(0 <= b < 1 for b in self.adam_betas), "algo.adam_betas", self.adam_betas, "from 0 to below 1")
        require(self.adam_eps > 0, "algo.adam_eps", self.adam_eps, "positive")
        for key in ("network", "actor_network", "critic_network"):
            hidden = getattr(self, key).hidden
            fits = hidden is None or (len(hidden) > 0 and min(hidden) > 0)
            require(fits, f"algo.{key}.hidden", hidden, "one positive width or more")
            width = getattr(self, key).final_init
            require(not isinstance(width, float) or width >= 0, f"algo.{key}.final_init", width, "none, 0 or positive")

    def _require_nothing_pooled(self) -> None:
        """Refuse, for an algorithm whose critics see their own agent alone, what it would not do."""
        if self.critic_input == "pool":
            lacks = f"algo.critic_input is 'pool', but the critics of {self.name} see their own agent alone"
            raise UsageError(f"{lacks}; use {CENTRAL[self.name]}, or concatenate.")

    @abstractmethod
    def to_act(self) -> Self:
        """The same for an agent that only acts: with the least storage."""


@dataclass(frozen=True)
class MAPPOConfig(ActorCriticConfig):
    """MAPPO: PPO with a critic that sees all agents (Yu et al. 2022)."""

    name: str = "mappo"
    batch_size: int = 6_400
    """Environment steps collected before each update, over all copies. Larger: steadier and slower."""
    update_epochs: int = 4
    """Passes over the batch per update. More learns faster from each step, until agents outrun one another."""
    num_minibatches: int = 8
    """Parts of the batch, one optimiser step each."""
    clip_coef: float = 0.2
    """How far the probability ratio may move before its gradient stops."""
    clip_value: float | None = None
    """Limits how far a value may move per update (units of the normalised value); none: not limited."""
    gae_lambda: float = 0.95
    """Trade of bias (0) against variance (1) in the advantages."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus. Too little: early collapse onto one action; too much: never decides."""
    target_kl: float | None = None
    """Ends an update's epochs once the policy has moved this far (nats); none: never."""
    chunk_length: int = 10
    """Steps through which gradients flow back in recurrent networks. Fewer: what lies further back is not learned to be
    remembered; more: fewer and longer samples, slower, and gradients that may explode."""
    normalize_advantage: bool = True
    """Standardises advantages per group over active steps, of which at most a hundredth are winsorised."""
    squash: bool = True
    """Box actions pass a tanh and a scaling layer to their true range; off: a plain Gaussian, clipped at the bounds."""
    log_std_init: float = 0.3
    """Logarithm of the deviation with which Box actions are explored at first: before the tanh, or without it in the
    environment's units. Too little: what is far off is tried late; too much: only the bounds are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("batch_size", "update_epochs", "num_minibatches", "chunk_length"):
            require(getattr(self, key) > 0, f"algo.{key}", getattr(self, key), "at least 1")
        fits = self.num_minibatches <= self.batch_size
        require(fits, "algo.num_minibatches", self.num_minibatches, f"at most batch_size ({self.batch_size})")
        require(self.clip_coef > 0, "algo.clip_coef", self.clip_coef, "positive")
        require(self.clip_value is None or self.clip_value > 0, "algo.clip_value", self.clip_value, "none or positive")
        require(0 <= self.gae_lambda <= 1, "algo.gae_lambda", self.gae_lambda, "from 0 to 1")
        known = LOG_STD_MIN < self.log_std_init < LOG_STD_MAX
        between = f"between {LOG_STD_MIN:g} and {LOG_STD_MAX:g}"
        require(known, "algo.log_std_init", self.log_std_init, between)
        require(self.entropy_coef >= 0, "algo.entropy_coef", self.entropy_coef, "0 or positive")
        require(self.target_kl is None or self.target_kl > 0, "algo.target_kl", self.target_kl, "none or positive")

    @property
    def recurrent(self) -> bool:
        """Whether the actor or the critic remembers."""
        networks = (override.over(self.network) for override in (self.actor_network, self.critic_network))
        return any(network.recurrent != "none" for network in networks)

    def to_act(self) -> Self:
        """The same for an agent that only acts: a batch of one step."""
        return replace(self, batch_size=1, num_minibatches=1)


@dataclass(frozen=True)
class IPPOConfig(MAPPOConfig):
    """IPPO: PPO whose critic sees what its own agent sees (de Witt et al. 2020)."""

    name: str = "ippo"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_nothing_pooled()


@dataclass(frozen=True)
class MADDPGConfig(ActorCriticConfig):
    """MADDPG: deterministic policies, each judged by a critic that sees what all see and do (Lowe et al. 2017)."""

    name: str = "maddpg"
    lr: float = 3e-3
    normalize_reward: bool = True
    normalize_value: bool = False
    """Not used: rewards are normalised instead, which keeps target networks in the same units."""
    action_penalty: float = 1e-2
    network: NetworkConfig = NetworkConfig(activation="relu")
    buffer_size: int = 500_000
    """Environment steps that the replay holds."""
    batch_size: int = 256
    """Steps drawn from the replay for each update."""
    steps_per_update: int = 32
    """Environment steps collected for each update. Fewer: more learning from each step, and slower."""
    train_every: int = 2_560
    """Environment steps between rounds of updates, which are also the logged iterations."""
    warm_up: int = 10_000
    """Environment steps of uniformly random actions before learning begins."""
    tau: float = 0.01
    """Share of the way that target networks go to the learned ones at each update of the actor."""
    twin_critics: bool = False
    """Two critics, the lower of whose estimates is believed: against overestimated values."""
    policy_delay: int = 1
    """Updates of the critic for each of the actor and the targets."""
    discrete_gradient: Literal["expected", "straight_through"] = "expected"
    """What discrete actions learn from. expected: the critic's value of each action (of four drawn ones where there are
    more than eight). straight_through: its slope at one drawn action (Gumbel-softmax), which may point away from a
    better one: agents then repeat one action although the critic knows better."""
    target_noise: float = 0.0
    """Deviation of the noise on target actions, in half-ranges (discrete: any but 0 draws them), cut at
    `target_noise_clip`: smooths the critic."""
    target_noise_clip: float = 0.5
    """Where the noise on target actions is cut."""
    exploration_noise: float = 0.3
    """Deviation of the noise on continuous actions at the beginning, in half-ranges."""
    final_noise: float = 0.05
    """The same at the end of the run; in between it falls linearly."""
    huber: float | None = 1.0
    """Beyond this error the critic's loss is linear; none: squared everywhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("buffer_size", "batch_size", "steps_per_update", "train_every", "policy_delay"):
            require(getattr(self, key) > 0, f"algo.{key}", getattr(self, key), "at least 1")
        require(self.warm_up >= 0, "algo.warm_up", self.warm_up, "0 or a number of steps")
        require(0 < self.tau <= 1, "algo.tau", self.tau, "above 0 and at most 1")
        for key in ("target_noise", "target_noise_clip", "exploration_noise", "final_noise"):
            require(getattr(self, key) >= 0, f"algo.{key}", getattr(self, key), "0 or positive")
        require(self.huber is None or self.huber > 0, "algo.huber", self.huber, "none or positive")
        require(self.lr_schedule != "kl", "algo.lr_schedule", "kl", "constant, linear or cosine: kl is PPO's")
        for key in ("network", "actor_network", "critic_network"):
            if (kind := getattr(self, key).recurrent) not in (None, "none"):
                lacks = f"algo.{key}.recurrent is {kind!r}, which {self.name} does not have"
                raise UsageError(f"{lacks}; use mappo or ippo, or none.")

    def to_act(self) -> Self:
        """The same for an agent that only acts: a replay of one step."""
        return replace(self, buffer_size=1, train_every=1)


@dataclass(frozen=True)
class MATD3Config(MADDPGConfig):
    """MATD3: MADDPG with twin critics, delayed actors and smoothed targets (Ackermann et al. 2019)."""

    name: str = "matd3"
    twin_critics: bool = True
    policy_delay: int = 2
    target_noise: float = 0.2


@dataclass(frozen=True)
class IDDPGConfig(MADDPGConfig):
    """IDDPG: DDPG for each agent, with a critic that sees what its own agent sees and does (Lillicrap et al. 2016)."""

    name: str = "iddpg"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_nothing_pooled()


AlgoT = TypeVar("AlgoT", bound=ActorCriticConfig)

ALGORITHMS: dict[str, type[MAPPOConfig | MADDPGConfig]] = {
    "iddpg": IDDPGConfig,
    "ippo": IPPOConfig,
    "maddpg": MADDPGConfig,
    "mappo": MAPPOConfig,
    "matd3": MATD3Config,
}

PLAIN: dict[str, Any] = {
    "max_grad_norm": None,
    "normalize_obs": False,
    "normalize_reward": False,
    "normalize_value": False,
    "action_penalty": 0.0,
    "weight_decay": 0.0,
    "l1": 0.0,
    "lr_schedule": "constant",
    "target_kl": None,
    "squash": False,
    "log_std_init": -0.5,
    "huber": None,
    "discrete_gradient": "straight_through",
}
PLAIN_NETWORK: dict[str, Any] = {"norm": "none", "block": "plain", "final_init": None}
"""What `--measures none` sets: the algorithm as its paper has it, nothing that only serves stability."""


def default_config(name: str) -> MAPPOConfig | MADDPGConfig:
    """The defaults of the algorithm called `name`; UsageError for an unknown one."""
    if not isinstance(name, str) or name not in ALGORITHMS:  # a preset may hold anything in its place
        raise unknown("algorithm", str(name), ALGORITHMS, f"Known: {', '.join(ALGORITHMS)}.")
    return ALGORITHMS[name]()


def with_measures(algo: AlgoT, measures: Literal["default", "none"]) -> AlgoT:
    """`algo` with all stability measures as by default, or with none of them; sizes, rates and all else stay."""
    default = default_config(algo.name)
    plain, network = PLAIN, PLAIN_NETWORK
    if measures == "default":
        plain = {key: getattr(default, key, None) for key in PLAIN}
        network = {key: getattr(default.network, key) for key in PLAIN_NETWORK}
    own = {f.name for f in fields(algo)}
    unset = dict.fromkeys(PLAIN_NETWORK)  # what was said of one network alone gives way as well
    return replace(
        algo,
        **{key: value for key, value in plain.items() if key in own},
        network=replace(algo.network, **network),
        actor_network=replace(algo.actor_network, **unset),
        critic_network=replace(algo.critic_network, **unset),
    )
