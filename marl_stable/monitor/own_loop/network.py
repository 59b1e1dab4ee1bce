"""A network of anyone's loop and its optimiser: gradients, steps, weights and activations as signals.

Shapes: P parameters (as tensors), L weight matrices, N rows, H units. Everything stays on the device. Gradients are
read when the optimiser begins its step, where it is known: at each step one norm of all of them, and those of single
layers only right before a reading; weights at a reading.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors
from torch.utils.hooks import RemovableHandle

from marl_stable.monitor.own_loop.activations import Activations
from marl_stable.monitor.signals import networks
from marl_stable.types import UsageError

FROZEN = 10.0  # a weight whose gradients are within so many eps of nothing hardly moves
COPIED = 1_000_000  # numbers that are sooner copied into one row than measured one by one
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
        self._at = [i for i, p in enumerate(self.parameters) if p.dim() > 1]  # weight matrices
        self.layers = [_layer(part) for part, p in named.items() if p.dim() > 1]
        self.activations = Activations(module)
        small = sum(p.numel() for p in self.parameters) <= COPIED
        self._compact = small and len({p.dtype for p in self.parameters}) == 1
        self._norm = _norm_of_copy if self._compact else _norm_of_each
        self.norms: list[Tensor] = []  # () of all gradients together, of each step since the last reading
        self._last = self._copies()  # weights at the last reading
        self._before: list[Tensor] | None = None  # weights before a step that is looked at
        self._moved: Tensor | None = None  # () how far such a step went
        self._stepped = 0  # steps since looking began
        self._gradients: dict[int, Tensor] = {}  # norms of gradients by parameter, where they are looked at
        self._looking = False
        self._hooks: list[RemovableHandle] = []
        if optimizer:
            self._hooks = [optimizer.register_step_pre_hook(self._begins)]

    def look(self) -> None:
        """The next call is a reading: look at what precedes it."""
        self._looking = True
        self.activations.arm()
        if self.optimizer is None:
            self._before = self._copies()
        elif len(self._hooks) == 1:
            self._hooks.append(self.optimizer.register_step_post_hook(self._ends))

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
            self._moved, self._before = torch.linalg.vector_norm(torch.stack(self._changes(self._before))), None

    def _read_gradients(self) -> None:
        gradients = [_dense(p.grad) for p in self.parameters if p.grad is not None]
        if not gradients:
            return
        norm = self._norm(gradients)
        self.norms.append(norm.detach() if norm.requires_grad else norm)
        if self._looking and self._stepped % LOOK_EVERY == 0:
            at = (i for i, p in enumerate(self.parameters) if p.grad is not None)
            with torch.no_grad():
                self._gradients = dict(zip(at, torch._foreach_norm(gradients), strict=True))

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
        for hook in self._hooks[1:]:
            hook.remove()
        self._hooks = self._hooks[:1]
        found = self.activations.read(rank)
        if self.optimizer is not None and not norms:
            return {}
        if norms:
            found["norms"] = torch.stack(norms)
        weights = torch.stack(torch._foreach_norm([p.detach() for p in self.parameters]))
        if moved is not None:
            found["update_ratio"] = networks.ratio(moved, weights.norm())
        return found | self._by_layer(weights, gradients) | self._adam()

    def rate(self) -> float | None:
        """The size of steps, as the optimiser is set at present."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else None

    def _changes(self, before: list[Tensor]) -> tuple[Tensor, ...]:
        """Norms of what was added to each parameter since."""
        with torch.no_grad():
            return tuple(
                torch._foreach_norm([p - x.to(p.device) for p, x in zip(self.parameters, before, strict=True)])
            )

    def _by_layer(self, weights: Tensor, gradients: dict[int, Tensor]) -> dict[str, Tensor]:
        """`(L,)` size and change of each weight matrix, and its gradient; `weights (P,)` are norms."""
        change = torch.stack(self._changes(self._last))
        self._last = self._copies()
        if not self._at:
            return {}
        roots = torch.tensor([self.parameters[i].numel() ** 0.5 for i in self._at], device=weights.device)
        weight, change = (torch.stack([x[i] for i in self._at]) for x in (weights, change))
        found = {"layer_weight": weight / roots, "layer_change": networks.ratio(change, weight)}
        if gradients:
            nothing = torch.zeros_like(weight[0])
            found["layer_grad"] = torch.stack([gradients.get(i, nothing) for i in self._at]) / roots
        return found

    def _adam(self) -> dict[str, Tensor]:
        """What an optimiser with second moments v remembers, corrected by their weights 1 - beta^t; in place of the
        latest gradients its memory of them."""
        moments = {i: moment for i, p in enumerate(self.parameters) if (moment := self._moment(p)) is not None}
        if not moments:
            return {}
        sums = {i: v.sum() / weight for i, (v, weight, _) in moments.items()}
        floors = [(v, (FROZEN * eps) ** 2 * weight) for v, weight, eps in moments.values()]
        if len({floor for _, floor in floors}) == 1 and self._compact:
            frozen = (_flatten_dense_tensors([v for v, _ in floors]) < floors[0][1]).sum()
        else:
            frozen = torch.stack([(v < floor).sum() for v, floor in floors]).sum()
        found = {
            "memory": torch.stack(list(sums.values())).sum().sqrt(),
            "eps_frozen": frozen / sum(v.numel() for v, _, _ in moments.values()),
        }
        if self._at and all(i in sums for i in self._at):
            found["layer_grad"] = torch.stack([sums[i] / self.parameters[i].numel() for i in self._at]).sqrt()
        return found

    def _moment(self, p: nn.Parameter) -> tuple[Tensor, Any, float] | None:
        state = self.optimizer.state.get(p, {}) if self.optimizer else {}
        v = next((state[name] for name in SECOND_MOMENTS if name in state), None)
        if v is None or self.optimizer is None:
            return None
        group = next(group for group in self.optimizer.param_groups if any(p is q for q in group["params"]))
        weight, step = 1.0, state.get("step")
        if "betas" in group and step is not None:
            there = isinstance(step, Tensor) and step.device.type != "cpu"  # the host would have to wait for it
            weight = 1 - group["betas"][1] ** (step if there else float(step))
        return v, weight, group.get("eps", 0.0)


def _check(name: str, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer | None) -> None:
    if not parameters:
        raise UsageError(f"watch({name!r}): the module has no parameter that is trained; hand over one that has.")
    if any(nn.parameter.is_lazy(p) for p in parameters):
        raise UsageError(
            f"watch({name!r}): a lazy layer has no weights yet; call the module once on an observation before."
        )
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


def _dense(gradient: Tensor) -> Tensor:
    """What is not zero by form: of the gradient of an embedding with `sparse=True`, the rows that were used."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _layer(parameter: str) -> str:
    """The name of the layer that a weight belongs to."""
    return parameter.removesuffix("weight").removesuffix(".") or parameter


def _norm_of_copy(gradients: list[Tensor]) -> Tensor:
    """`()` norm of small gradients: two operations, however many there are."""
    norm: Tensor = torch.linalg.vector_norm(_flatten_dense_tensors(gradients))
    return norm


def _norm_of_each(gradients: list[Tensor]) -> Tensor:
    """`()` norm of gradients of any size and type, without a copy of them."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([x.float() for x in torch._foreach_norm(gradients)]))
    return norm
