"""What one of several processes does for test_distributed.py: `python -m tests.ranks SCENE...` in each of them."""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.sabotage import at_boundaries
from marl_stable import distributed
from marl_stable.agents.ppo import masked_mean, normalized_advantage
from marl_stable.cli import main
from marl_stable.interruption import Signals
from marl_stable.monitor import guard, pace
from marl_stable.networks.batchnorm import BatchNorm
from marl_stable.normalize import RunningNorm
from marl_stable.training import Training
from marl_stable.types import EnvironmentFailure, UsageError
from tests.runs import measure_little, words

REPLAY = [
    *("--algo", "maddpg", "--algo.train-every", "48", "--algo.steps-per-update", "24", "--algo.batch-size", "16"),
    *("--algo.warm-up", "48", "--algo.buffer-size", "480"),
]
ROLLOUT_ONLY = ("--algo.num-minibatches", "--algo.update-epochs")
VARIANTS = {
    "mappo": [],
    "maddpg": REPLAY,
    "an actor each": ["--algo.share", "off"],
    "batch norm": ["--algo.network.norm", "batch"],
    "batch norm, replay": [*REPLAY, "--algo.network.norm", "batch"],
    "decisions": ["--algo.lr-schedule", "kl", "--algo.target-kl", "1e-4", "--algo.normalize-reward", "on"],
    "with memory": ["--algo.network.recurrent", "gru"],
    "agents die": ["--env", "uneven.py:Uneven", "--env.kwargs", "{}", "--algo.share", "off"],
}
HERE = int(os.environ.get("RANK", "0"))


def tiny(run: str, *more: str) -> int:
    """A tiny training, without what costs time before it."""
    asked = words(Path(run), "--quiet", *more)
    for flag in ROLLOUT_ONLY if "maddpg" in more else ():
        del asked[asked.index(flag) : asked.index(flag) + 2]
    return main(asked)


@contextlib.contextmanager
def kept(name: str) -> Iterator[None]:
    """Within, all that was learned is written at the end of the training, by each process."""
    seen: list[Training] = []
    with at_boundaries(seen.append):
        yield
    learned = {group: learner.state_dict() for group, learner in seen[-1].agent.learners.items()}
    rates = {
        f"{group}/{network}": learner.optimizer(network).rates.current
        for group, learner in seen[-1].agent.learners.items()
        for network in ("actor", "critic")
    }
    torch.save({"learned": learned, "rates": rates, "obs": seen[-1].obs}, f"{name}-{HERE}.pt")


def at_step(steps: int, harm: Callable[[Any], None]) -> contextlib.AbstractContextManager[None]:
    """Within, `harm(learner)` after the first iteration at or after `steps`."""
    done: list[int] = []

    def plant(training: Training) -> None:
        if training.steps >= steps and not done:
            done.append(training.steps)
            for learner in training.agent.learners.values():
                harm(learner)

    return at_boundaries(plant)


def spoiled_gradients(factor: float) -> Callable[[Any], None]:
    """The next gradients of the actor, of this process only, are `factor` times what they are."""

    def harm(learner: Any) -> None:
        gather, left = learner.actor_optimizer._gather, [2]

        def spoiled(gradients: Any) -> Tensor:
            left[0] -= 1
            gradient: Tensor = gather(gradients)
            return gradient * (factor if left[0] >= 0 else 1.0)

        learner.actor_optimizer._gather = spoiled

    return harm


def stun(learner: Any) -> None:
    """This process alone believes once that a huge gradient has Adam's memory."""
    stunned = learner.actor_optimizer.stunned

    def believed() -> Tensor:
        learner.actor_optimizer.stunned = stunned
        return torch.ones(learner.actor_optimizer.rows, dtype=torch.bool)

    learner.actor_optimizer.stunned = believed


def lose_the_actor(learner: Any) -> None:
    learner.actor_optimizer.flat.fill_(math.nan)


def nothing(learner: Any) -> None:
    pass


# ---- scenes


def equal() -> None:
    """Every variant, and every act of the guard."""
    for name, flags in VARIANTS.items():
        with kept(name):
            assert tiny(name, *flags) == 0
    long = ["--total-steps", "1200", "--eval-every", "0", "--checkpoint-every", "1200"]
    only_here: dict[str, tuple[Callable[[Any], None], str]] = {
        "refused": (spoiled_gradients(math.nan), "guard"),
        "skipped": (spoiled_gradients(1e9), "guard"),
        "reset": (stun, "guard"),
    }
    for name, (harm, level) in only_here.items():
        with kept(name), at_step(960, harm if HERE == 1 else nothing):
            assert tiny(name, *long, "--stability", level) == 0
    with kept("restored"), at_step(240, lose_the_actor):
        assert tiny("restored", *long, "--stability", "repair") == 0
    with kept("lowered"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "LONGEST_STEP", 0.004)
        patch.setattr(guard, "CALM", 2)
        patch.setattr(guard, "CALM_BELOW", 0.9)
        assert tiny("lowered", *long) == 0


def resume() -> None:
    """Whole runs, and the same after a stop that only the second process was asked for; and another number before.

    One process alone has trained the latter, in `... alone before`.
    """
    for name, flags in {"mappo": [], "maddpg": REPLAY}.items():
        assert tiny(f"{name} whole", *flags) == 0
        asked, left = Signals.__call__, [3]

        def told(signals: Signals, asked: Any = asked, left: list[int] = left) -> bool:
            left[0] -= 1
            return asked(signals) or (HERE == 1 and left[0] < 0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Signals, "__call__", told)
            assert tiny(f"{name} stopped", *flags) == 130
        assert main(["train", "--resume", f"{name} stopped", "--quiet"]) == 0
        with kept(f"{name} alone before"):
            assert main(["train", "--resume", f"{name} alone before", "--quiet", "--total-steps", "480"]) == 0


def killed() -> None:
    """The second process dies in the middle of the first attempt."""

    def die(training: Training) -> None:
        if HERE == 1 and training.steps >= 144 and not distributed.restarted():
            os.kill(os.getpid(), signal.SIGKILL)

    with at_boundaries(die):
        sys.exit(tiny("run"))


def plain() -> None:
    """One run as the command line makes it."""
    sys.exit(tiny("run", *sys.argv[2:]))


def learn() -> None:
    """A game whose answer is known: the highest action pays most, 2 a step."""
    flags = ["--env", "tests.envs.fakes:Walk", "--env.kwargs", "{}", "--algo.lr", "1e-2", "--algo.batch-size", "80"]
    assert tiny("walk", *flags, "--total-steps", "4800", "--eval-every", "0") == 0


def refused() -> None:
    """Copies that cannot be shared alike are one sentence of each process."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        assert tiny("unshared", "--env.num-envs", "7") == 2
    Path(f"refused-{HERE}").write_text(told.getvalue())


def units() -> None:
    """Every function, and what is made of all data, against the same of one process that has them all."""
    with distributed.joined(torch.device("cpu")) as device:
        assert (device.type, distributed.world_size(), distributed.rank()) == ("cpu", 2, HERE)
        here = torch.tensor([[1.0, HERE]])
        assert distributed.total(here).tolist() == [[2, 1]]
        assert distributed.mean(here).tolist() == [[1, 0.5]]
        assert distributed.gathered(here).tolist() == [[1, 0], [1, 1]]
        assert here.tolist() == [[1, HERE]]
        assert [distributed.anyone(x) for x in (HERE == 1, False, True)] == [True, False, True]
        assert distributed.told({"from": HERE}) == {"from": 0}
        assert distributed.collected(HERE) == ([0, 1] if HERE == 0 else [])
        assert distributed.part(torch.arange(5)).tolist() == [[0, 2], [1, 3]][HERE]
        assert distributed.own_seed(7) == [7, 7 + distributed.APART][HERE]
        assert distributed.own_seed(2**31 - 1) < 2**31
        with distributed.alone():
            assert (distributed.world_size(), distributed.rank()) == (1, HERE)
            assert distributed.total(here) is here
        with pytest.raises(UsageError, match=r"copies is 7, which 2 processes cannot share alike; set it to 8\."):
            distributed.divided(7, "copies")
        _failures()
        _means()
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    Path(f"units-{HERE}").touch()


def _failures() -> None:
    with pytest.raises(EnvironmentFailure, match="mine"), distributed.together(UsageError, EnvironmentFailure):
        _fail_in_the_second()
    with distributed.together(UsageError):
        pass
    with pytest.raises(UsageError, match="first"), distributed.together(UsageError, EnvironmentFailure):
        raise (UsageError if HERE == 0 else EnvironmentFailure)("first" if HERE == 0 else "second")


def _fail_in_the_second() -> None:
    if HERE == 1:
        raise EnvironmentFailure("mine")


def _means() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=draw) * torch.tensor([1.0, 20.0, 300.0]) + 5
    x[::7, 1] = torch.nan
    alive = (torch.rand(64, 3, generator=draw) < torch.linspace(0.2, 1.0, 64).unsqueeze(1)).float()
    mine = slice(32 * HERE, 32 * HERE + 32)
    for share in (True, False):
        weight = torch.ones(3, requires_grad=True)
        loss = masked_mean((x.nan_to_num() * weight).square()[mine], alive[mine], share)
        (gradient,) = torch.autograd.grad(loss, weight)
        rows = [(i, a) for i in range(64) for a in range(3) if alive[i, a]]
        expected = torch.zeros(3)
        for i, a in rows:
            count = len(rows) if share else int(alive[:, a].sum())
            expected[a] += 2 * x.nan_to_num()[i, a].square() / count
        torch.testing.assert_close(distributed.mean(gradient), expected)
    with distributed.alone():
        joint = normalized_advantage(x, alive)[mine]
    torch.testing.assert_close(normalized_advantage(x[mine], alive[mine]), joint, equal_nan=True)
    norm, whole = RunningNorm((3,), 5.0), RunningNorm((3,), 5.0)
    for scale in (1.0, 1.1, 1e4, 1e4, 1e4):  # the last of which is known for a true change
        norm.update(x[mine] * scale, alive[mine])
        with distributed.alone():
            whole.update(x * scale, alive)
    torch.testing.assert_close(norm.state_dict(), whole.state_dict(), rtol=1e-9, atol=0)
    layer, joined = BatchNorm(3, None), BatchNorm(3, None)
    for part, module in ((mine, layer), (slice(None), joined)):
        module.alive, module.rate = alive[part].amax(1), 0.1
        with distributed.alone() if module is joined else contextlib.nullcontext():
            module(x[part].nan_to_num())
    torch.testing.assert_close(layer.state_dict(), joined.state_dict())


SCENES = {scene.__name__: scene for scene in (equal, resume, killed, plain, learn, refused, units)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    measure_little(pytest.MonkeyPatch())
    guard.SNAPSHOT_EVERY = 2
    for name in sys.argv[1:]:
        if name in SCENES:
            SCENES[name]()
