"""Does it work on a GPU as it does on the CPU, without waiting for it, and how fast: to be run wherever a GPU is.

    python -m benchmarks.gpu_smoke            # about four minutes; writes results/gpu.md
    python -m benchmarks.gpu_smoke --quick    # equality and waits alone

Equality: the same training on both devices, all random numbers drawn on the CPU, so that only arithmetic can differ.
Waits: PyTorch's own debug mode counts operations that wait for the device. Speed: whole iterations, the
devices in turn; work on the device is over when the clock is read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

import marl_stable as ms
from benchmarks.provenance import code_commit
from benchmarks.trials import RESULTS
from marl_stable.agents import algorithm
from marl_stable.agents.base import Agent
from marl_stable.agents.config import MADDPGConfig, default_config
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import PerGroup

TABLE = RESULTS / "gpu.md"
TASK = "simple_spread_v3"
CPU, GPU = torch.device("cpu"), torch.device("cuda")
ALGORITHMS = ("mappo", "ippo", "maddpg", "matd3", "iddpg")
ITERATIONS = 3  # of which the first begins with equal weights; differences of rounding grow from then on
ONE_UPDATE = {"steps_per_update": 256, "train_every": 256}  # an iteration, of what learns from a replay
WARM_UP = 4  # iterations, in which updates are recorded
CLOSE = 2e-3  # of losses, relative: float32 sums in another order, through 3 updates of a replay
COPIES = (256, 1_024, 4_096, 16_384)
MOST_ON_CPU = 1_024
LEARNED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GPU", "cuda", {}),
    ("GPU, no graphs", "cuda", {"compile": False}),
    ("GPU, 4,096 copies, a batch of 25 steps of each", "cuda", {"env__num_envs": 4_096, "algo__batch_size": 102_400}),
)


class SameDraws(TorchFunctionMode):
    """Lets every generator, whatever its device, draw what a CPU generator of the same seed draws."""

    FACTORIES = (torch.rand, torch.randint, torch.randperm)
    IN_PLACE = (Tensor.exponential_, Tensor.normal_, Tensor.uniform_)

    def __init__(self) -> None:
        super().__init__()
        self.twins: dict[int, tuple[torch.Generator, torch.Generator]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        generator = kwargs.get("generator")
        if generator is None or func not in (*self.FACTORIES, *self.IN_PLACE):
            return func(*args, **kwargs)
        kwargs["generator"] = self._twin(generator)
        if func in self.FACTORIES:
            device = torch.device(kwargs.pop("device", CPU))
            return func(*args, **kwargs).to(device)
        return args[0].copy_(func(torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:], **kwargs))

    def _twin(self, generator: torch.Generator) -> torch.Generator:
        made = torch.Generator().manual_seed(generator.initial_seed())
        return self.twins.setdefault(id(generator), (made, generator))[0]  # the original is kept, and so its id


class Player:
    """An agent in its environment, iteration by iteration."""

    def __init__(
        self, algo: str, device: torch.device, copies: int = 256, compiled: bool = True, **settings: Any
    ) -> None:
        config = replace(default_config(algo), gamma=0.95, **settings)
        if isinstance(config, MADDPGConfig):
            config = replace(config, warm_up=0)
        kwargs = {"continuous_actions": algo in ("matd3", "iddpg")}
        self.env: BatchedEnv = catalog.make(EnvConfig(id=f"particle/{TASK}", kwargs=kwargs), device, copies)
        self.agent: Agent = algorithm(algo)(self.env.spec, config, copies, device, seed=1)
        if compiled:
            self.agent.compile()
        self.obs: PerGroup = self.env.reset(1)
        self.agent.initialize_statistics(self.obs)

    def collect(self) -> None:
        """Until the batch is full."""
        while not self.agent.ready():
            step = self.env.step(self.agent.act(self.obs))
            self.agent.observe(step)
            self.obs = step.obs

    def learn(self) -> dict[str, PerGroup]:
        """One update; its figures, on the device."""
        stats = self.agent.update(0.0, lambda: False)
        assert stats is not None
        return stats

    def steps(self) -> int:
        """Environment steps of an iteration."""
        return self.agent.rollout_steps * self.env.num_envs


def same_with_and_without_graphs(algo: str, iterations: int = 3, **settings: Any) -> bool:
    """Whether recorded updates make the same agent, bit for bit."""
    states = []
    for compiled in (False, True):
        player = Player(algo, GPU, compiled=compiled, **settings)
        for _ in range(iterations):
            player.collect()
            player.learn()
        states.append(player.agent.policy_state()["groups"])
    return equal(*states)


def equal(left: Any, right: Any) -> bool:
    """Bit for bit, through nested dictionaries; NaN equals NaN."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if not isinstance(left, Tensor):
        return bool(left == right)
    return bool(torch.equal(left.nan_to_num(7e30), right.nan_to_num(7e30)))


def differences(algo: str, **settings: Any) -> dict[str, float]:
    """Relative difference of each loss between the devices, the largest over iterations."""
    return apart(losses(algo, CPU, **settings), losses(algo, GPU, **settings))


def losses(algo: str, device: torch.device, nudge: float = 0.0, **settings: Any) -> list[dict[str, float]]:
    """Of a few iterations, that many updates where there is a replay; `nudge`: of each weight at first, relative."""
    if isinstance(default_config(algo), MADDPGConfig):
        settings = ONE_UPDATE | settings
    with SameDraws():
        player = Player(algo, device, compiled=False, **settings)  # what is drawn on the CPU cannot be recorded
        if nudge:
            player.agent.load_policy_state(scaled(player.agent.policy_state(), 1 + nudge))
        rows = []
        for _ in range(ITERATIONS):
            player.collect()
            rows.append(player.learn())
    return [{tag: float(x["agent"].mean()) for tag, x in row.items() if "losses/" in tag} for row in rows]


def scaled(state: dict[str, Any], factor: float) -> dict[str, Any]:
    """A state with all that is no whole number `factor` times as large."""
    larger: dict[str, Any] = tree_map_only(Tensor, lambda x: x * factor if x.is_floating_point() else x, state)
    return larger


def apart(rows: list[dict[str, float]], others: list[dict[str, float]]) -> dict[str, float]:
    """Relative difference of each loss, the largest over iterations; a delayed actor's loss is not in all of them."""
    found: dict[str, float] = {}
    for row, other in zip(rows, others, strict=True):
        for tag, value in row.items():
            found[tag] = max(found.get(tag, 0.0), abs(value - other[tag]) / max(abs(value), 1e-2))
    return found


def waits(work: Callable[[], Any]) -> int:
    """How many operations of `work` wait for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(w.message) for w in caught)


def waits_by_part(algo: str, **settings: Any) -> dict[str, int]:
    """Waits in each part of an iteration that has run before."""
    player = Player(algo, GPU, **settings)
    for _ in range(WARM_UP):
        player.collect()
        player.learn()
    return {
        "collecting": waits(player.collect),
        "learning": waits(player.learn),
        "figures": waits(lambda: player.agent.signals(False)),
        "probe": waits(lambda: player.agent.signals(True)),
    }


def rate(player: Player, iterations: int) -> float:
    """Environment steps per second of whole iterations."""
    began = time.perf_counter()
    for _ in range(iterations):
        player.collect()
        player.learn()
        player.agent.signals(False)
    if player.env.device.type == "cuda":
        torch.cuda.synchronize()
    return iterations * player.steps() / (time.perf_counter() - began)


def env_rate(device: torch.device, copies: int, steps: int = 200) -> float:
    """Steps per second of the environment alone, with random actions drawn beforehand."""
    env = catalog.make(EnvConfig(id=f"particle/{TASK}"), device, copies)
    env.reset(1)
    actions = [{"agent": torch.randint(5, (copies, 3), device=device)} for _ in range(25)]
    for t in range(25):
        env.step(actions[t])
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for t in range(steps):
        env.step(actions[t % 25])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return copies * steps / (time.perf_counter() - began)


def learned(device: str, steps: int, **flags: Any) -> tuple[float, float]:
    """Seconds of a whole training on the device, and its last evaluation return."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = ms.train(
            algo="mappo", env=f"particle/{TASK}", device=device, total_steps=steps, seed=1, quiet=True,
            run_dir=str(Path(folder) / "run"), **flags,
        )  # fmt: skip
        if run.status != "finished":
            raise SystemExit(f"a training on {device} was {run.status}")
        return time.perf_counter() - began, run.returns[-1][1]


def report(quick: bool) -> list[str]:
    """The whole page, printed as it comes."""
    lines: list[str] = []

    def say(line: str = "") -> None:
        lines.append(line)
        print(line, flush=True)

    name = torch.cuda.get_device_name()
    say(f"`python -m benchmarks.gpu_smoke` at {code_commit()} on {name}, torch {torch.__version__}, `particle/{TASK}`.")
    say()
    say(
        "| algorithm | largest difference of a loss from the CPU's | graphs change nothing "
        "| waits: collecting | learning | figures | probe |"
    )
    say("|---|---|---|---|---|---|---|")
    for algo in ALGORITHMS:
        apart = differences(algo)
        worst = max(apart, key=lambda tag: apart[tag])
        counted = waits_by_part(algo)
        parts = " | ".join(str(counted[part]) for part in ("collecting", "learning", "figures", "probe"))
        same = "yes" if same_with_and_without_graphs(algo) else "NO"
        say(f"| {algo} | {apart[worst]:.1e} ({worst}) | {same} | {parts} |")
    if quick:
        return lines
    say()
    say("| copies | environment alone, steps/s: GPU | CPU | training | GPU | GPU, no graphs | CPU |")
    say("|---|---|---|---|---|---|---|")
    for copies in COPIES:
        alone = [f"{env_rate(device, copies):,.0f}" for device in (GPU, CPU)]
        for algo in ("mappo", "maddpg"):
            cells = [training_rate(algo, copies, *arm) for arm in ((GPU, True), (GPU, False), (CPU, False))]
            say(f"| {copies:,} | {' | '.join(alone)} | {algo} | {' | '.join(cells)} |")
    say()
    say("| whole training of 1.5M steps by MAPPO, defaults but for what is named | seconds | last evaluation return |")
    say("|---|---|---|")
    for what, device, flags in LEARNED:
        seconds, value = learned(device, 1_500_000, **flags)
        say(f"| {what} | {seconds:.0f} | {value:.2f} |")
    return lines


def training_rate(algo: str, copies: int, device: torch.device, compiled: bool) -> str:
    """Steps per second of whole iterations, as a cell; MAPPO's batch is an episode of every copy."""
    if device == CPU and copies > MOST_ON_CPU:
        return ""
    on_policy = algo == "mappo"
    settings = {"batch_size": 25 * copies} if on_policy else {"train_every": max(256, copies)}
    player = Player(algo, device, copies, compiled, **settings)
    rate(player, WARM_UP if compiled else 1)
    return f"{rate(player, max(3, (12 if on_policy else 40) * 256 // copies)):,.0f}"


def main() -> None:
    """Check, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="equality and waits alone; no table is written")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here; nothing was measured.")
    torch.set_num_threads(1)
    lines = report(asked.quick)
    if not asked.quick:
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
