"""The state of a simulator that has no way to save it: all tensors and numbers found inside its objects.

Walks attributes, lists and dicts from a root in a fixed order, and names each holder by its path, so that the same walk
through another instance, made by the same calls, finds the same places. Plain types and tensors only leave here.
Tensors that share memory do so in the copy too, as `torch.save` keeps it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor

Holder: TypeAlias = "dict[Any, Any] | list[Any] | tuple[Any, ...]"
Snapshot: TypeAlias = "dict[str, dict[str, dict[str | int, Any]]]"
"""By path of the holder and key in it: `values`, the data, and `links`, the paths of other holders."""

_NUMBERS = (bool, int, float, str, type(None))
_NOT_WALKED = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, Enum)


class _Walk:
    """One walk: what was met, by the path on which it was met first."""

    def __init__(self, root: Any) -> None:
        self.objects: dict[str, Any] = {}
        self.holders: dict[str, Holder] = {}
        self.values: dict[str, dict[str | int, Any]] = {}
        self.links: dict[str, dict[str | int, str]] = {}
        self._met: dict[int, str] = {}
        self._waiting: deque[tuple[Any, str]] = deque()
        self._meet(root, "")
        while self._waiting:  # near ones first: what is found last hangs on what refers to it now
            self._enter(*self._waiting.popleft())

    def _meet(self, value: Any, path: str) -> str:
        """The path of `value`, which is entered later where it is new."""
        if id(value) not in self._met:
            self._met[id(value)] = path
            self._waiting.append((value, path))
        return self._met[id(value)]

    def _enter(self, value: Any, path: str) -> None:
        holder: Holder = value if isinstance(value, list | dict | tuple) else vars(value)
        values: dict[str | int, Any] = {}
        links: dict[str | int, str] = {}
        for i, key in enumerate(_keys_that_are_objects(holder)):
            links[f"key {i}"] = self._meet(key, f"{path}.key {i}")
        for key, item in _items(holder):
            if is_data(item):
                values[key] = item
            elif isinstance(item, list | dict | tuple) or _is_object(item):
                links[key] = self._meet(item, f"{path}.{key}")
        self.objects[path], self.holders[path] = value, holder
        self.values[path], self.links[path] = values, links

    def is_like(self, state: Snapshot) -> bool:
        """Whether `state` can be put here: the same holders, of which only attributes and lists change their keys."""
        if self.values.keys() != state["values"].keys():
            return False
        for path, holder in self.holders.items():
            fixed = {key: to for key, to in self.links[path].items() if isinstance(holder, tuple) or _is_a_key(key)}
            if any(state["links"][path].get(key) != to for key, to in fixed.items()):
                return False  # neither can be made to refer to another object
            if not _has_names(holder) and self._keys(path) != (
                state["values"][path].keys() | state["links"][path].keys()
            ):
                return False
        return True

    def _keys(self, path: str) -> set[str | int]:
        return self.values[path].keys() | self.links[path].keys()


def take(root: Any) -> Snapshot:
    """All data inside `root`, copied, and what refers to what."""
    walk = _Walk(root)
    return {"values": _copied(walk.values, {}), "links": walk.links}


def put(root: Any, state: Snapshot) -> bool:
    """Give `root` the data of `state`; False, with nothing changed, where its objects are not those `state` is of."""
    walk = _Walk(root)
    if not walk.is_like(state):
        return False
    for path, values in _copied(state["values"], {}).items():
        holder, here = walk.holders[path], walk.values[path]
        if isinstance(holder, tuple):
            continue
        links = state["links"][path]
        for key in here.keys() - values.keys() - links.keys():
            del holder[_key(holder, key)]
        for key, value in values.items():
            holder[_key(holder, key)] = _on_device_of(here.get(key), value)
        for key, target in links.items():
            if _is_a_key(key):
                continue
            holder[_key(holder, key)] = walk.objects[target]
    return True


def keep_rows(root: Any, before: Snapshot, kept: Tensor) -> bool:
    """Give the copies `kept` (E,) the data of `before` again, where everything that changed since has a row per copy.

    False, with nothing changed, where anything else changed.
    """
    walk = _Walk(root)
    if walk.links != before["links"]:
        return False
    mixed = []
    for path, here in walk.values.items():
        old = before["values"][path]
        if here.keys() != old.keys():
            return False
        for key, value in here.items():
            if _has_row_per_copy(value, old[key], kept):
                mask = kept.view(-1, *[1] * (value.ndim - 1))
                mixed.append((walk.holders[path], key, torch.where(mask, old[key], value)))
            elif not _same(value, old[key]):
                return False
    for holder, key, value in mixed:
        assert not isinstance(holder, tuple)  # a tuple of tensors is data; among objects it holds none
        holder[_key(holder, key)] = value
    return True


def is_data(value: Any) -> bool:
    """Whether `value` is a tensor, a number, or a list, tuple or dict of such."""
    if isinstance(value, Tensor) or type(value) in _NUMBERS:
        return True
    if type(value) is dict:
        return all(type(key) in (str, int) for key in value) and all(map(is_data, value.values()))
    return type(value) in (list, tuple) and all(map(is_data, value))


def _copied(value: Any, memory: dict[int, torch.UntypedStorage]) -> Any:
    """Ten times as fast as `deepcopy`. `memory`: what has been copied, by where it was."""
    if isinstance(value, Tensor):
        old = value.untyped_storage()
        if old.nbytes() == 0:
            return value.clone()
        place = old.data_ptr()
        if place not in memory:
            memory[place] = old.clone()
        empty = torch.empty(0, dtype=value.dtype, device=value.device)
        return empty.set_(memory[place], value.storage_offset(), value.shape, value.stride())
    if isinstance(value, dict):
        return {key: _copied(item, memory) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, memory) for item in value)
    return value


def _items(holder: Holder) -> list[tuple[str | int, Any]]:
    """Keys as plain types: the names of attributes, sorted since they are made in any order, else positions."""
    if isinstance(holder, dict) and _has_names(holder):
        return sorted(holder.items(), key=lambda item: str(item[0]))
    return list(enumerate(holder.values() if isinstance(holder, dict) else holder))


def _keys_that_are_objects(holder: Holder) -> list[Any]:
    return [key for key in holder if _is_object(key)] if isinstance(holder, dict) else []


def _is_a_key(key: str | int) -> bool:
    return isinstance(key, str) and key.startswith("key ")


def _has_names(holder: Holder) -> bool:
    return isinstance(holder, dict) and all(type(key) is str for key in holder)


def _key(holder: Holder, key: str | int) -> Any:
    return list(holder)[key] if isinstance(holder, dict) and isinstance(key, int) else key


def _is_object(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, _NOT_WALKED)


def _on_device_of(here: Any, value: Any) -> Any:
    """Loading moves all tensors to one device; a simulator may keep some elsewhere."""
    return value.to(here.device) if isinstance(value, Tensor) and isinstance(here, Tensor) else value


def _has_row_per_copy(value: Any, old: Any, kept: Tensor) -> bool:
    if not isinstance(value, Tensor) or not isinstance(old, Tensor):
        return False
    fits = value.shape == old.shape and value.dtype == old.dtype and value.device == kept.device
    return fits and value.ndim > 0 and len(value) == len(kept) and len(kept) not in value.shape[1:]


def _same(value: Any, old: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(old, Tensor) and value.shape == old.shape and torch.equal(value, old)
    if isinstance(value, list | tuple):
        return type(value) is type(old) and len(value) == len(old) and all(map(_same, value, old))
    if isinstance(value, dict):
        return isinstance(old, dict) and value.keys() == old.keys() and all(_same(value[k], old[k]) for k in value)
    return bool(value == old)
