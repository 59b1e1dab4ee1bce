"""One reading of anyone's loop: its tensors to the host in one transfer, then the numbers of a row by name and place.

Shapes: n steps since the last reading, A agents, L layers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable.clipping import Spikes
from marl_stable.monitor.calibration import sigma
from marl_stable.monitor.own_loop.network import WatchedNetwork
from marl_stable.monitor.table import Column, columns

GROUP = "agents"
CLIPPING = "clipping/"  # norms that the loop's clipping told, of a network by name, or of all together
HISTORY = 1_000  # gradient norms that say what is usual
Floats = NDArray[np.float64]
Key = tuple[str, str]
"""Where a tensor comes from, and what it is."""


def to_host(tensors: Mapping[Key, Tensor]) -> dict[Key, Floats]:
    """All tensors, in their shapes, in one transfer per device."""
    found: dict[Key, Floats] = {}
    for device in {x.device for x in tensors.values()}:
        keys = [key for key, x in tensors.items() if x.device == device]
        flat = torch.cat([tensors[key].detach().reshape(-1).to(torch.float32) for key in keys])
        numbers = flat.cpu().numpy().astype(np.float64)
        ends = np.cumsum([tensors[key].numel() for key in keys])
        for key, part in zip(keys, np.split(numbers, ends[:-1]), strict=True):
            found[key] = part.reshape(tensors[key].shape)
    return found


def stacked(numbers: Sequence[Tensor | float]) -> Tensor:
    """`(n,)` on the device of the first tensor among them."""
    tensors = [x for x in numbers if isinstance(x, Tensor)]
    if len(tensors) == len(numbers):
        return torch.stack(tensors)
    if not tensors:
        return torch.tensor(numbers)
    device = tensors[0].device
    return torch.stack([torch.as_tensor(x, dtype=torch.float32, device=device) for x in numbers])


def of_numbers(found: Mapping[Key, Floats]) -> Iterator[tuple[Column, float]]:
    """Means of losses, infinite where one was not finite; of returns, those of episodes that ended."""
    for (kind, tag), values in found.items():
        if kind != "numbers" or tag.startswith(CLIPPING):
            continue
        known = values[~np.isnan(values)]
        if tag == "charts/return":
            yield Column(tag, ()), float(known.mean()) if len(known) else math.nan
        else:
            yield Column(tag, ()), float(values.mean()) if np.isfinite(values).all() else math.inf


def of_figures(found: Mapping[Key, Floats], agents: Sequence[str]) -> Iterator[tuple[Column, float]]:
    """Signals of the data, at their places."""
    for (kind, tag), values in found.items():
        if kind == "figures":
            yield from zip(columns(tag, GROUP, values.shape, agents), values.ravel().tolist(), strict=True)


def of_network(
    network: WatchedNetwork, found: Mapping[Key, Floats], factor: Floats | None, usual: deque[float]
) -> Iterator[tuple[Column, float]]:
    """Signals of a network; `factor (n,)` by which clipping made gradients smaller, `usual` log norms so far."""
    own = {name: values for (kind, name), values in found.items() if kind == network.name}
    norms, memory = own.pop("norms", None), own.pop("memory", None)
    reach, rate = own.pop("reach", None), network.rate()
    numbers: dict[str, float] = {}
    if norms is not None:
        if memory is not None and np.isfinite(norms).any():
            numbers["adam_memory"] = float(norms[np.isfinite(norms)].mean() / max(float(memory), 1e-30))
        numbers |= judge(norms if factor is None else norms * factor, usual)
    if reach is not None and rate is not None and network.name == "actor":
        numbers["step_budget"] = rate * float(reach)
    numbers |= {name: float(values) for name, values in own.items() if values.ndim == 0}
    for name, value in numbers.items():
        yield Column(name, (("group", GROUP), ("network", network.name))), value
    for name, values in own.items():
        layers = network.activations.names if name == "dormant" else network.layers
        for layer, value in zip(layers, values.tolist() if values.ndim else (), strict=False):
            yield Column(name, (("group", GROUP), ("network", network.name), ("layer", layer))), value


def judge(norms: Floats, usual: deque[float]) -> dict[str, float]:
    """Mean and peak of gradient norms, how many were not finite, and how many were spikes, which `usual` then knows."""
    finite = norms[np.isfinite(norms)]
    numbers = {"non_finite": 1 - len(finite) / len(norms)}
    numbers["grad_norm"] = float(finite.mean()) if len(finite) else math.inf
    numbers["grad_norm_peak"] = float(norms.max()) if len(finite) == len(norms) else math.inf
    if len(usual) >= Spikes.WARM_UP:
        past = np.asarray(usual)
        middle = float(np.median(past))
        limit = middle + max(Spikes.Z * (sigma(past) + 1e-3), math.log(Spikes.TIMES))
        numbers["grad_spike"] = float((np.log(np.maximum(norms, 1e-30)) > limit).mean())
    usual.extend(np.log(np.maximum(finite, 1e-30)).tolist())
    return numbers


def clip_factors(found: Mapping[Key, Floats], names: Sequence[str]) -> dict[str, Floats]:
    """By what a network's gradient norms `(n,)` must be multiplied to be those before clipping; only where the loop
    told a norm at every step. One clip over all networks makes all of them smaller alike."""
    norms = {name: found[name, "norms"] for name in names if (name, "norms") in found}
    together = found.get(("numbers", CLIPPING))
    told = {name: found.get(("numbers", CLIPPING + name)) for name in norms}
    if together is not None and norms and all(len(x) == len(together) for x in norms.values()):
        whole = np.sqrt(sum(x**2 for x in norms.values()))
        told = dict.fromkeys(norms, together)
        norms = dict.fromkeys(norms, whole)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: np.where(norms[name] == 0, 1.0, x / norms[name])
            for name, x in told.items()
            if x is not None and len(x) == len(norms[name])
        }
