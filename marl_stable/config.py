"""What a run is made of, as frozen dataclasses. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from marl_stable.conversion import require

Activation = Literal["tanh", "relu", "leaky_relu", "elu", "gelu", "silu"]
Norm = Literal["none", "layer", "batch"]
Block = Literal["plain", "residual"]
Init = Literal["orthogonal", "xavier", "he"]
Memory = Literal["none", "gru", "lstm"]
MOST_THREADS = 1024  # torch dies of a hundred thousand, without a word
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0  # what Gaussian policies' log deviations stay between


@dataclass(frozen=True)
class NetworkConfig:
    """Shape and start of a network."""

    hidden: tuple[int, ...] = (128, 128)
    """Width of each hidden layer; with `block residual`, one block per entry, all of the first width."""
    norm: Norm = "layer"
    """Normalisation in hidden layers. Bounds what one layer hands to the next; costs a little speed. batch: by running
    statistics that move between updates only, for acting, learning and targets alike."""
    block: Block = "plain"
    """`residual` adds each block to its input, with the norm before it (SimBa). Worth it beyond three layers."""
    activation: Activation = "tanh"
    """Non-linearity of hidden layers."""
    init: Init = "orthogonal"
    """Initialisation of hidden layers."""
    final_init: float | None = 3e-3
    """Half-width of the uniform that starts the last layer; none: like a hidden layer. Large values let early
    updates pin actions at their bounds."""
    recurrent: Memory = "none"
    """A cell after the hidden layers that remembers within an episode (MAPPO and IPPO only). For tasks where what is
    seen now does not tell what to do; costs speed."""


@dataclass(frozen=True)
class NetworkOverride:
    """Fields of `algo.network` that hold for one network only; unset fields follow `algo.network`."""

    hidden: tuple[int, ...] | None = None
    """Width of each hidden layer."""
    norm: Norm | None = None
    """Normalisation in hidden layers."""
    block: Block | None = None
    """Plain or residual blocks."""
    activation: Activation | None = None
    """Non-linearity of hidden layers."""
    init: Init | None = None
    """Initialisation of hidden layers."""
    final_init: float | Literal["none"] | None = None
    """Half-width of the uniform that starts the last layer; none: like a hidden layer."""
    recurrent: Memory | None = None
    """A cell that remembers within an episode."""

    def over(self, base: NetworkConfig) -> NetworkConfig:
        """`base` with the fields set here."""
        own = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(base, **own | ({"final_init": None} if self.final_init == "none" else {}))


@dataclass(frozen=True)
class EnvConfig:
    """The environment and how many copies of it run at once."""

    id: str = "particle/simple_spread_v3"
    """Environment, `--env` for short: see `marl-stable envs`; or package.module:factory, path/to/file.py:factory."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the environment, as JSON."""
    num_envs: int | Literal["auto"] = "auto"
    """Copies stepped together. auto: 256 on the device, 32 for environments written in Python. The amount of data
    per update does not depend on it (`algo.batch_size`)."""
    workers: int = 0
    """Processes that step the copies of an environment written in Python, never more than copies; results do not depend
    on it. 0: in this process, where an environment that fails in training ends the run at once."""
    step_timeout: float = 60.0
    """Seconds after which workers that have not finished one step (or one reset) count as hung and are replaced."""
    max_failures: int = 10
    """Failures of workers, and of environments in them, that a run survives, each at the price of the episodes it hits
    (training and evaluation count apart). Too few: rare crashes end long runs; too many: a broken one goes on."""
    time_limit_as: Literal["truncation", "termination"] | None = None
    """Reads every episode end as this, for environments that mislabel theirs; unset: believe the environment."""
    teams: dict[str, Any] | None = None
    """Who belongs together, as {"team": ["agent", ...]} with every agent once; unset: a table for known environments,
    else the environment's attribute `teams`, else one team."""
    reward: Literal["own", "mean"] = "own"
    """What agents learn from: own: each from its own reward; mean: all from the mean over their team. Returns,
    evaluations and logged rewards are each agent's own either way."""


@dataclass(frozen=True)
class AlgoConfig:
    """What all algorithms have in common for the run: a name. Their own fields are in `agents/config.py`."""

    name: str = ""
    """Algorithm, `--algo` for short: see `marl-stable algos`."""


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    algo: AlgoConfig
    env: EnvConfig = EnvConfig()
    total_steps: int = 1_000_000
    """Environment steps (all copies together); training ends at the first iteration boundary at or after it."""
    seed: int = 1
    """Seed of everything random in the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks, storage and batched environments live; auto: cuda where there is one."""
    threads: int | Literal["auto"] = 1
    """Threads torch uses inside one operation. More than one is often many times slower on small networks. auto: what
    was fastest when updates like this run's were tried for about a second, before it began; on a GPU 1."""
    compile: bool = True
    """On a CUDA device: records the updates as CUDA graphs and replays them, with the same results; many times faster
    for networks of the usual size."""
    amp: Literal["off", "bf16"] = "off"
    """bf16: hidden layers multiply in bfloat16, in acting and learning; parameters, statistics, last layers and losses
    stay float32. Faster for wide networks (1024) where processors have such products, slower for narrow ones."""
    measures: Literal["default", "none"] = "default"
    """none: the plain algorithm, without any stability measure; later flags add single measures again."""
    stability: Literal["off", "monitor", "guard", "repair"] = "guard"
    """off: nothing watched; monitor: watched, never acts; guard: refuses bad updates and transitions, lowers steps that
    are too large, and stops where only an earlier state would help; repair: goes back to that state."""
    eval_every: int = 100_000
    """Steps between evaluations; 0: only at the end."""
    eval_episodes: int = 100
    """Greedy episodes per evaluation."""
    checkpoint_every: int = 250_000
    """Steps between checkpoints; the end of the run and an interruption always save."""
    init_from: str | None = None
    """Run folder whose weights and normalisers this run begins with (best checkpoint, else last). Optimisers,
    counters and schedules start anew."""
    run_dir: str | None = None
    """The run folder itself; default runs/ENV/ALGO/TIME-sSEED."""
    quiet: bool = False
    """No progress bar and no summary; warnings still appear."""
    profile: bool = False
    """Measures where the time goes and prints the table at the end."""

    def __post_init__(self) -> None:
        for key, value in (("env.id", self.env.id), ("init_from", self.init_from), ("run_dir", self.run_dir)):
            require(value != "", key, value, "a name; an unset variable in a script looks like this")
        require(self.total_steps > 0, "total_steps", self.total_steps, "a positive number of steps")
        fits = self.threads == "auto" or 0 < self.threads <= MOST_THREADS
        require(fits, "threads", self.threads, f"auto or from 1 to {MOST_THREADS}")
        require(self.eval_every >= 0, "eval_every", self.eval_every, "0 (only at the end) or a number of steps")
        require(self.eval_episodes > 0, "eval_episodes", self.eval_episodes, "at least 1")
        require(self.checkpoint_every > 0, "checkpoint_every", self.checkpoint_every, "a positive number of steps")
        require(0 <= self.seed < 2**31, "seed", self.seed, "a whole number from 0 to 2147483647")
        copies = self.env.num_envs
        require(copies == "auto" or copies > 0, "env.num_envs", copies, "auto or at least 1")
        require(self.env.workers >= 0, "env.workers", self.env.workers, "0 (in this process) or a number of processes")
        require(self.env.step_timeout > 0, "env.step_timeout", self.env.step_timeout, "a positive number of seconds")
        require(self.env.max_failures >= 0, "env.max_failures", self.env.max_failures, "0 (none survived) or more")
