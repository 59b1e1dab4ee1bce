"""The monitor for anyone's own PyTorch loop: hand over what the loop has, ask what is wrong.

Shapes: N rows, T steps in order, E copies, A agents, D action dimensions, n actions. See `docs/your_own_loop.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marl_stable.monitor.case import Case
from marl_stable.monitor.diagnosis import diagnose
from marl_stable.monitor.own_loop import reading
from marl_stable.monitor.own_loop.figures import Actions, Figures
from marl_stable.monitor.own_loop.journal import Journal
from marl_stable.monitor.own_loop.network import WatchedNetwork
from marl_stable.monitor.own_loop.window import Window
from marl_stable.monitor.table import Column
from marl_stable.types import UsageError

RANK_EVERY = 4  # readings: eigenvalues are dear
LOSSES = {  # what loops call their losses -> the tags of this package
    **dict.fromkeys(("critic_loss", "value_loss", "vf_loss", "v_loss", "q_loss", "qf_loss"), "critic"),
    **dict.fromkeys(("actor_loss", "policy_loss", "pg_loss", "policy_gradient_loss"), "actor"),
    **dict.fromkeys(("clip_fraction", "clipfrac"), "clip_fraction"),
}


MISTAKEN = {  # what other loops call arguments of `step`, where that is not nearly their name
    **{"obs": "observation", "act": "action", "rew": "reward"},
    **{"terminations": "terminated", "truncations": "truncated"},
}


class StabilityMonitor:
    """Watches networks and data of a loop, and says what is wrong with it, where, and since when.

    `step` copies what it is given and waits for no device, but for every `every`-th call, the reading: one row of the
    recording from which `report` works.
    """

    def __init__(
        self,
        every: int = 100,
        *,
        gamma: float | None = 0.99,
        num_actions: int | None = None,
        action_low: Any = None,
        action_high: Any = None,
        agents: Sequence[str] = ("agent",),
        total_steps: int | None = None,
        random_return: float | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`gamma`: the discount of values and returns; None where values hold more than rewards (an entropy bonus).

        `num_actions` of discrete actions, or the bounds of continuous ones, numbers or `(D,)`. `agents`: where there
        are several, arrays have an axis for them, after the rows. `total_steps`: how long it is to be. `random_return`:
        what random play returns, where known, from which a return must rise. `config`: what the loop does, in keys of
        this package (`{"algo.normalize_obs": True}`). UsageError where these cannot be.
        """
        if every < 1:
            raise UsageError(f"every={every}: a reading is taken every so many calls of step; give 1 or more.")
        if (action_low is None) != (action_high is None):
            raise UsageError("action_low and action_high belong together; give both or neither.")
        bounds = [None if x is None else torch.as_tensor(x, dtype=torch.float32) for x in (action_low, action_high)]
        self.every, self.agents = every, tuple(agents)
        self._config = {"loop": "own"} | ({} if gamma is None else {"algo.gamma": gamma}) | dict(config or {})
        self.total_steps, self._random_return = total_steps, random_return
        self._kind = Actions(num_actions, *bounds)
        self._figures = Figures(self._kind, gamma)
        self._networks: dict[str, WatchedNetwork] = {}
        self._unhooked: list[WatchedNetwork] = []  # without an optimiser
        self._usual: dict[str, deque[float]] = {}  # log gradient norms
        self._window = Window(self.agents)
        self._journal = Journal()
        self._calls = self._count = 0  # since the last reading, and ever
        self._given: int | None = None  # steps at the last reading at which the loop told them

    def watch(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Watch a module; call it "actor" or "critic" where it is one, since some faults are looked for there only.

        With its optimiser, gradients are read whenever that steps, also where they are cleared at once; without, in
        `step`, where they must still be there. Raises UsageError where there is nothing to watch.
        """
        if name in self._networks or name in ("figures", "numbers"):
            raise UsageError(f"watch({name!r}): this name is taken; give every network its own.")
        self._networks[name] = network = WatchedNetwork(name, module, optimizer)
        if optimizer is None:
            self._unhooked.append(network)
        self._usual[name] = deque(maxlen=reading.HISTORY)
        if self.every == 1:
            self._networks[name].look()

    def step(
        self,
        *,
        steps: int | None = None,
        loss: Any = None,
        q: Any = None,
        value: Any = None,
        action: Any = None,
        reward: Any = None,
        observation: Any = None,
        done: Any = None,
        terminated: Any = None,
        truncated: Any = None,
        episode_return: Any = None,
        episode_length: Any = None,
        entropy: Any = None,
        approx_kl: Any = None,
        log_ratio: Any = None,
        first_minibatch: bool = False,
        logits: Any = None,
        greedy_action: Any = None,
        preactivation: Any = None,
        grad_norm: Any = None,
        **losses: Any,
    ) -> None:
        """Hand over any of these, after the optimiser's step: tensors, arrays or numbers.

        Raw rewards, and values in the same units. Steps in order are `(T, E)`, or numbers, one step a call; `(N,)` are
        samples in no order. `grad_norm`: what `clip_grad_norm_` returned over all that is watched, without which
        gradients are seen as clipped; by name where networks are clipped apart. `first_minibatch`: `log_ratio` is of
        data from which nothing was learned yet. `greedy_action` is in the units of the bounds; `preactivation` is what
        a tanh is given. `steps` counts the environment's steps, and may stay where it is while a loop learns from them;
        where it is left out, calls are counted.
        """
        window = self._window
        tag = "losses/critic" if q is not None and not losses.keys() & LOSSES.keys() else "losses/loss"
        for name, x in ((tag, loss), ("losses/entropy", entropy), ("losses/approx_kl", approx_kl)):
            if x is not None:
                window.take_number(name, x)
        for name, x in losses.items():
            if x is not None:
                _require_loss(name, x)
                window.take_number("losses/" + LOSSES.get(name, name), x)
        for name, x in (("charts/return", episode_return), ("charts/episode_length", episode_length)):
            if x is not None:
                window.take_number(name, x)
        if grad_norm is not None:
            for name, x in (grad_norm if isinstance(grad_norm, dict) else {"": grad_norm}).items():
                window.take_number(reading.CLIPPING + name, x)
        if log_ratio is not None:
            window.take_log_ratio(log_ratio, first_minibatch)
        arrays = {"reward": reward, "value": q if value is None else value, "done": done, "terminated": terminated}
        arrays |= {"truncated": truncated, "observation": observation, "action": action, "logits": logits}
        arrays |= {"greedy_action": greedy_action, "preactivation": preactivation}
        if given := {name: x for name, x in arrays.items() if x is not None}:
            window.take(given)
        self._go_on(steps)

    def report(self) -> dict[str, Any]:
        """What is wrong, as `marl-stable diagnose --json` says it: verdict, findings (the root cause first), symptoms.

        From all readings so far; what came since the last one is not in them.
        """
        return diagnose(Case(self._journal.recording(), self._config, self._facts()))

    def save(self, folder: str | Path) -> None:
        """Write the recording so that `marl-stable diagnose FOLDER` reads it; UsageError where that cannot be.

        What an earlier call wrote there is replaced.
        """
        path = Path(folder)
        if (path / "checkpoints").exists():
            raise UsageError(f"{str(path)!r} holds a run of marl-stable; name another folder.")
        self._journal.save(path, self._config, {"status": "finished", **self._facts()})

    def close(self) -> None:
        """Take all hooks away from networks and optimisers; reports can still be asked for."""
        for network in self._networks.values():
            network.close()

    # ---- a reading

    def _go_on(self, steps: int | None) -> None:
        for network in self._unhooked:
            network.after()
        self._calls, self._count = self._calls + 1, self._count + 1
        if self._calls >= self.every:
            self._read(self._reached(steps))
        if self._calls == self.every - 1:
            for network in self._networks.values():
                network.look()

    def _reached(self, steps: int | None) -> int:
        """The steps of a reading: after the one before, also where a loop learns often from the same steps."""
        last = self._journal.steps[-1] if self._journal.steps else -1
        if steps is None:
            return max(self._count, last + 1)
        if self._given is not None and steps < self._given:
            raise UsageError(
                f"steps={steps} lies before {self._given}, told earlier; count on, or begin a new monitor."
            )
        self._given = int(steps)
        return max(self._given, last + 1)

    def _read(self, steps: int) -> None:
        rank = len(self._journal.steps) % RANK_EVERY == 0
        tensors = {("figures", tag): x for tag, x in self._figures.read(self._window).items()}
        tensors |= {("numbers", tag): reading.stacked(x) for tag, x in self._window.numbers.items()}
        for name, network in self._networks.items():
            tensors |= {(name, signal): x for signal, x in network.read(rank).items()}
        self._journal.add(steps, dict(self._named(reading.to_host(tensors))))
        self._window, self._calls = Window(self.agents), 0

    def _named(self, found: dict[reading.Key, reading.Floats]) -> Iterator[tuple[Column, float]]:
        yield from reading.of_numbers(found)
        yield from reading.of_figures(found, self.agents)
        factors = reading.clip_factors(found, list(self._networks))
        for name, network in self._networks.items():
            yield from reading.of_network(network, found, factors.get(name), self._usual[name])

    def _facts(self) -> dict[str, Any]:
        steps = self._journal.steps[-1] if self._journal.steps else 0
        discrete = self._kind.low is None
        action: dict[str, Any] = {"n": self._kind.n or 0} if discrete else {"low": [], "high": []}
        group = {"name": reading.GROUP, "agents": list(self.agents), "team": "team", "action": action}
        facts: dict[str, Any] = {"steps": steps, "spec": {"agents": list(self.agents), "groups": [group]}}
        if (known := self._random_return) is not None:
            facts["baselines"] = {"random": {"return": known, "ci95": [known, known]}, "best_constant": None}
        return facts | ({} if self.total_steps is None else {"total_steps": self.total_steps})


def _require_loss(name: str, x: Any) -> None:
    """Refuse what comes to `step` as a loss and is none: it would be averaged and never looked at."""
    if name in LOSSES:
        return
    near = [] if "loss" in name else get_close_matches(name, signature(StabilityMonitor.step).parameters, 1, 0.8)
    if meant := MISTAKEN.get(name) or next(iter(near), None):
        raise UsageError(f"step({name}=...): there is no such argument; did you mean {meant}?")
    if len(shape := tuple(getattr(x, "shape", ()))) > 1:
        raise UsageError(f"step({name}=...): what step does not know by name is taken for a loss, not shape {shape}.")
