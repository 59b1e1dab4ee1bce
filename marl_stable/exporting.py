"""A trained policy as programs, one file for each agent, that need nothing of this package: PyTorch's or ONNX.

Shapes: B batch, O observation features, n discrete actions, M features of memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor, nn

from marl_stable.agents.base import Agent
from marl_stable.agents.group_learner import GroupLearner
from marl_stable.networks.actors import Actor, DeterministicActor
from marl_stable.policy import Loaded, load_agent
from marl_stable.provenance import versions
from marl_stable.report.files import replace_file
from marl_stable.types import ActionSpec, Box, Discrete, MultiDiscrete, UsageError, legal_features, spec_to_dict

Format = Literal["pt2", "onnx"]
ABOUT = "marl_stable.json"  # the entry of a .pt2, and the name in an .onnx, that says what the program is
EXAMPLES = 2  # rows of the batch that is traced; 1 would be taken for a constant


class Exported(NamedTuple):
    """What was written."""

    files: list[Path]
    checkpoint: str
    steps: int


class Program(nn.Module):
    """The greedy policy of one agent, from what it sees to what its environment takes."""

    def __init__(self, learner: GroupLearner, actor: Actor | DeterministicActor, index: int) -> None:
        """`actor` is that of the agent alone; `index` its number in the group of `learner`."""
        super().__init__()
        self.actor = actor
        self.norm = learner.obs_norm.alone(index) if learner.config.normalize_obs else nn.Identity()
        self.units = Units(learner.group.action)

    def forward(
        self, observation: Tensor, action_mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The action `(B, ...)` for a raw, flat `observation (B, O)`, and the memory to hand in with the next one.

        `action_mask (B, n)`, true where an action is legal, belongs to groups with masks; `memory (B, M)`, zeros where
        an episode begins, to recurrent actors.
        """
        if action_mask is not None:
            observation = torch.cat([observation, action_mask.to(observation.dtype)], dim=-1)
        seen = self.norm(observation.unsqueeze(1))  # an axis of one agent
        if memory is None:
            return self._taken(self.actor(seen))
        assert isinstance(self.actor, Actor)
        begins = torch.zeros_like(seen[..., 0], dtype=torch.bool).transpose(0, 1)  # the caller says so by zeros
        answer, memories = self.actor.sequence(seen.unsqueeze(0), memory.unsqueeze(1), begins)
        return self._taken(answer), memories[0, :, 0]

    def _taken(self, answer: Any) -> Tensor:
        return self.units(self.actor.to_env(answer.mode())[:, 0])  # type: ignore[no-any-return]


class Units(nn.Module):
    """Actions as the environment takes them: what :mod:`marl_stable.envs.decoding` does, on tensors."""

    start: Tensor  # (K,) of MultiDiscrete actions
    low: Tensor  # (D,) bounds of Box actions
    high: Tensor

    def __init__(self, action: ActionSpec) -> None:
        super().__init__()
        self.action, self.dtype = action, getattr(torch, np.dtype(action.dtype).name)
        if isinstance(action, MultiDiscrete):
            self.register_buffer("start", torch.tensor(action.start))
        elif isinstance(action, Box):  # bounds have the environment's precision, as far as there is a choice
            wide = self.dtype if self.dtype.is_floating_point else torch.float64
            self.register_buffer("low", torch.tensor(action.low, dtype=wide))
            self.register_buffer("high", torch.tensor(action.high, dtype=wide))

    def forward(self, chosen: Tensor) -> Tensor:
        """`(B,)`, `(B, K)` or `(B, D)` to `(B, ...)` in the environment's shape and dtype."""
        if isinstance(self.action, Discrete):
            return (chosen + self.action.start).to(self.dtype)
        taken = chosen + self.start if isinstance(self.action, MultiDiscrete) else self._inside(chosen)
        if self.action.scalar:
            return taken.to(self.dtype)[:, 0]
        shape = self.action.shape
        return taken.to(self.dtype).unflatten(1, shape) if len(shape) > 1 else taken.to(self.dtype)

    def _inside(self, chosen: Tensor) -> Tensor:
        near = chosen if self.dtype.is_floating_point else chosen.round()
        return torch.minimum(torch.maximum(near.to(self.low.dtype), self.low), self.high)


def export(run: Path, folder: Path, kind: Format = "pt2", checkpoint: str | None = None) -> Exported:
    """Write a file for each agent of `run` into `folder`, in place of those that are there.

    `pt2`: programs of torch.export. `onnx`: for ONNX runtimes; needs the extra of that name. `checkpoint`: as for
    `load_agent`. Raises UsageError where the run has no checkpoint or the folder cannot be written.
    """
    if kind == "onnx":
        _require_onnx()
    loaded = load_agent(run, checkpoint)
    return Exported(write(loaded, folder, kind), loaded.checkpoint, loaded.steps)


def write(loaded: Loaded, folder: Path, kind: Format = "pt2") -> list[Path]:
    """The files of a loaded agent, as :func:`export` writes them."""
    agents, files = _agents(loaded.agent), []
    with _refusing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for agent, learner, index in agents:
        program = _program(learner, index)
        content = _bytes(program, learner, kind, _about(loaded, agent, learner))
        files.append(folder / f"{file_name(agent)}.{kind}")
        with _refusing(folder):
            replace_file(files[-1], [content])
    return files


def file_name(agent: str) -> str:
    """The agent's name with all but letters, digits and `_.-~` percent-encoded, since it may hold a slash."""
    return quote(agent, safe="")


def _agents(agent: Agent) -> list[tuple[str, GroupLearner, int]]:
    """Every agent in the environment's order, who learns for it, and as which of the group."""
    places = {name: (x, i) for x in agent.learners.values() for i, name in enumerate(x.group.agents)}
    return [(name, *places[name]) for name in agent.spec.agents]


def _program(learner: GroupLearner, index: int) -> Program:
    group, config = learner.group, learner.config
    alone, network = group._replace(agents=(group.agents[index],)), config.actor_network.over(config.network)
    actor: Actor | DeterministicActor
    if isinstance(learner.actor, Actor):
        actor = Actor(alone, network, True, learner.actor.squash, torch.Generator())
    else:
        actor = DeterministicActor(alone, network, True, torch.Generator())
    shapes = {name: value.shape for name, value in actor.state_dict().items()}
    actor.load_state_dict({name: x.reshape(shapes[name]) for name, x in learner.actor.alone(index).items()})
    return Program(learner, actor, index).eval().requires_grad_(False)


def _bytes(program: Program, learner: GroupLearner, kind: Format, about: dict[str, Any]) -> bytes:
    inputs = _inputs(program, learner)
    observation = inputs.pop("observation")
    batch = torch.export.Dim("batch")
    axes = {name: {0: batch} for name in ("observation", *inputs)}
    with _quiet(), torch.no_grad():
        traced = torch.export.export(program, (observation,), inputs, dynamic_shapes=axes)
        traced.graph.eliminate_dead_code()  # such as probabilities, which nobody asks for
        for node in traced.graph.nodes:
            node.meta.pop("stack_trace", None)  # where this package lies on this machine
        return _pt2(traced, about) if kind == "pt2" else _onnx(traced, about)


def _inputs(program: Program, learner: GroupLearner) -> dict[str, Tensor]:
    """What the program is given, by name."""
    mask, memory = legal_features(learner.group), program.actor.body.network.memory_size
    found = {"observation": torch.zeros(EXAMPLES, learner.group.obs_size - mask)}
    found |= {"action_mask": torch.ones(EXAMPLES, mask, dtype=torch.bool)} if mask else {}
    return found | ({"memory": torch.zeros(EXAMPLES, memory)} if memory else {})


def _pt2(traced: torch.export.ExportedProgram, about: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.export.save(traced, content, extra_files={ABOUT: json.dumps(about)})
    return content.getvalue()


def _onnx(traced: torch.export.ExportedProgram, about: dict[str, Any]) -> bytes:
    names = ["action", "next_memory"][: len(traced.graph_signature.user_outputs)]  # ONNX gives no name twice
    found = torch.onnx.export(traced, dynamo=True, output_names=names, verbose=False)
    assert found is not None
    model = found.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # how torch came to it: half of the file
    model.metadata_props.add(key=ABOUT, value=json.dumps(about))
    return bytes(model.SerializeToString())


def _about(loaded: Loaded, agent: str, learner: GroupLearner) -> dict[str, Any]:
    """What stands in the file: whose policy it is, and what goes in and comes out."""
    (group,) = [g for g in spec_to_dict(loaded.spec)["groups"] if g["name"] == learner.group.name]
    return {
        "agent": agent,
        "group": group["name"],
        "env": loaded.spec.id,
        "algo": learner.config.name,
        "steps": loaded.steps,
        "checkpoint": loaded.checkpoint,
        "versions": versions(),
        "observation": {
            "size": group["obs_size"] - legal_features(learner.group),
            "form": "raw, as gymnasium.spaces.flatten has it",
            "first_category": group["first_category"],
        },
        "masked": group["masked"],
        "memory": learner.actor.body.network.memory_size,
        "action": {"kind": type(learner.group.action).__name__, **group["action"]},
    }


def _require_onnx() -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageError("--format onnx needs ONNX, which is not installed; pip install 'marl_stable[onnx]'.") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of their own insides."""
    before = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "torch.export")}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise UsageError(f"{str(folder)!r} cannot be written ({reason}); name another folder.") from error
