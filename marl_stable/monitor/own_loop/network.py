"""A network of anyone's loop and its optimiser: gradients, steps, weights and activations as signals.

Shapes: P parameters (as tensors), L weight matrices, N rows, H units. Everything stays on the device. Gradients are
read when the optimiser begins its step, where it is known; weights at a reading.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from marl_stable.monitor.own_loop.activations import Activations
from marl_stable.monitor.signals import networks
from marl_stable.types import UsageError

FROZEN = 10.0  # a weight whose gradients are within so many eps of nothing hardly moves
LOOK_EVERY = 16  # steps, where a call of the loop is many of them
SECOND_MOMENTS = ("exp_avg_sq", "square_avg")  # of Adam and its kin, of RMSprop


class WatchedNetwork:
    """Collects what one module and its optimiser do between two readings."""

    def __init__(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        """Raises UsageError where there is nothing to watch, or the optimiser has none of it."""
        named = {part: p for part, p in module.named_parameters() if p.requires_grad}
        _check(name, list(named.values()), optimizer)
        self.name, self.optimizer = name, optimizer
        self.parameters = list(named.values())
        self.matrices = {_layer(part): p for part, p in named.items() if p.dim() > 1}
        self.activations = Activations(module)
        self.norms: list[Tensor] = []  # () each: gradient norms since the last reading
        self._last = self._copies()  # weights at the last reading
        self._before: list[Tensor] | None = None  # weights before a step that is looked at
        self._moved: Tensor | None = None  # () how far such a step went
        self._stepped = 0  # steps since looking began
        self._gradients: dict[str, Tensor] = {}  # rms of each matrix's latest gradient, where it is looked at
        self._looking = False
        self._hooks: list[RemovableHandle] = []
        if optimizer:
            self._hooks = [optimizer.register_step_pre_hook(self._begins)]
            self._hooks.append(optimizer.register_step_post_hook(self._ends))

    def look(self) -> None:
        """The next call is a reading: look at what precedes it."""
        self._looking = True
        self.activations.arm()
        if self.optimizer is None:
            self._before = self._copies()

    def after(self) -> None:
        """After a step of the loop: without an optimiser, its gradients are read now, if they are still there."""
        if self.optimizer is None:
            self._read_gradients()
            self._ends()

    def close(self) -> None:
        """Take all hooks away."""
        self.activations.disarm()
        for hook in self._hooks:
            hook.remove()

    def _begins(self, *_: Any) -> None:
        self._read_gradients()
        if self._looking and self._stepped % LOOK_EVERY == 0:
            self._before = self._copies()
        self._stepped += self._looking

    def _ends(self, *_: Any) -> None:
        if self._before is not None:
            self._moved, self._before = self._distance(self._before), None

    @torch.no_grad()
    def _distance(self, before: list[Tensor]) -> Tensor:
        return _size([p - old.to(p.device) for p, old in zip(self.parameters, before, strict=True)])

    @torch.no_grad()
    def _read_gradients(self) -> None:
        found = [p.grad for p in self.parameters if p.grad is not None]
        if found:
            self.norms.append(nn.utils.get_total_norm(found))
        if self._looking and self._stepped % LOOK_EVERY == 0:
            self._gradients = {name: _rms(p.grad) for name, p in self.matrices.items() if p.grad is not None}

    def _copies(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    # ---- a reading

    @torch.no_grad()
    def read(self, rank: bool) -> dict[str, Tensor]:
        """Signals since the last reading, `()` or `(L,)`; `norms (n,)` and `memory ()` are for the caller to judge.

        Nothing where the optimiser has not stepped. `rank`: the effective rank, which is dear, is due.
        """
        norms, moved, gradients = self.norms, self._moved, self._gradients
        self.norms, self._moved, self._gradients, self._looking, self._stepped = [], None, {}, False, 0
        found = self.activations.read(rank)
        if self.optimizer is not None and not norms:
            return {}
        if norms:
            found["norms"] = torch.stack(norms)
        if moved is not None:
            found["update_ratio"] = networks.ratio(moved, _size(self.parameters))
        return found | self._layers(gradients) | self._adam()

    def rate(self) -> float | None:
        """The size of steps, as the optimiser is set at present."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else None

    def _layers(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """`(L,)` size and change of each weight matrix, and its gradient where no optimiser remembers it."""
        last = {id(p): old for p, old in zip(self.parameters, self._last, strict=True)}
        weight = torch.stack([_rms(p) for p in self.matrices.values()]) if self.matrices else None
        if weight is None:
            return {}
        change = torch.stack([_rms(p - last[id(p)].to(p.device)) for p in self.matrices.values()])
        self._last = self._copies()
        found = {"layer_weight": weight, "layer_change": networks.ratio(change, weight)}
        if gradients:
            nothing = torch.zeros_like(weight[0])
            found["layer_grad"] = torch.stack([gradients.get(name, nothing) for name in self.matrices])
        return found

    def _adam(self) -> dict[str, Tensor]:
        """What an optimiser with second moments remembers; v and its weight 1 - beta^t, tensor by tensor."""
        moments = {id(p): moment for p in self.parameters if (moment := self._moment(p)) is not None}
        if not moments:
            return {}
        parts = list(moments.values())
        size = sum(v.numel() for v, _, _ in parts)
        found = {
            "memory": torch.stack([(v / w).sum() for v, w, _ in parts]).sum().sqrt(),
            "eps_frozen": torch.stack([(v < (FROZEN * eps) ** 2 * w).sum() for v, w, eps in parts]).sum() / size,
        }
        if all(id(p) in moments for p in self.matrices.values()):
            parts = [moments[id(p)] for p in self.matrices.values()]
            found["layer_grad"] = torch.stack([(v.mean() / w).sqrt() for v, w, _ in parts])
        return found

    def _moment(self, p: nn.Parameter) -> tuple[Tensor, Any, float] | None:
        state = self.optimizer.state.get(p, {}) if self.optimizer else {}
        v = next((state[name] for name in SECOND_MOMENTS if name in state), None)
        if v is None or self.optimizer is None:
            return None
        group = next(group for group in self.optimizer.param_groups if any(p is q for q in group["params"]))
        weight = 1 - group["betas"][1] ** state["step"] if "betas" in group and "step" in state else 1.0
        return v, weight, group.get("eps", 0.0)


def _check(name: str, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer | None) -> None:
    if not parameters:
        raise UsageError(f"watch({name!r}): the module has no parameter that is trained; hand over one that has.")
    if len({p.device for p in parameters}) > 1:
        raise UsageError(f"watch({name!r}): parameters lie on several devices; watch the parts one by one.")
    if optimizer is None:
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"watch({name!r}): {type(optimizer).__name__} is no torch.optim.Optimizer; leave it out.")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in held for p in parameters):
        raise UsageError(
            f"watch({name!r}): the optimiser holds no parameter of this module; hand over the one that does."
        )


def _layer(parameter: str) -> str:
    """The name of the layer that a weight belongs to."""
    return parameter.removesuffix("weight").removesuffix(".") or parameter


def _rms(x: Tensor) -> Tensor:
    return x.detach().float().square().mean().sqrt()


def _size(parts: list[Any]) -> Tensor:
    return nn.utils.get_total_norm([part.detach() for part in parts])
