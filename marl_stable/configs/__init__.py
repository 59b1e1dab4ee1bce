"""Presets and the reading of configuration files. Imports no torch.

YAML 1.2, read strictly: `1e-3` is a number, `on` is not a boolean by accident, and a key given twice is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from marl_stable.agents.config import ActorCriticConfig, default_config, with_measures
from marl_stable.config import RunConfig
from marl_stable.conversion import override, to_dict, unknown
from marl_stable.types import UsageError

if __name__ != "marl_stable.configs":  # the top-level link `configs` is for readers, not for imports
    raise ImportError("import marl_stable.configs, not configs: the link at the top level only shows the room.")


def presets() -> dict[str, str]:
    """Name and first comment line of every shipped preset."""
    found = {}
    for file in sorted(files(__name__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".yaml"):
            first = file.read_text(encoding="utf-8").partition("\n")[0]
            found[file.name.removesuffix(".yaml")] = first.removeprefix("#").strip()
    return found


def read_preset(name: str) -> dict[str, Any]:
    """The nested keys of a YAML file, or of the shipped preset called `name`; UsageError says what is wrong."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"preset file {name!r} does not exist; `marl-stable presets` lists the shipped ones.")
        return parse(_text(path), name)
    known = presets()
    if name not in known:
        raise unknown("preset", name, known, f"Known: {', '.join(known)}; or give a file that ends in .yaml.")
    return parse(files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"), name)


def parse(text: str, source: str) -> dict[str, Any]:
    """YAML text as nested dictionaries; UsageError with `source` and line where it is malformed."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UsageError(f"{source} is not valid YAML{where}: {problem}.") from error
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{source} must hold keys and values such as `algo: {{name: mappo}}`.")
    return dict(loaded)


def read_run(file: Path) -> RunConfig:
    """The configuration that a run folder keeps in `config.yaml`; UsageError where it is missing or malformed."""
    if not file.is_file():
        raise UsageError(f"{str(file)!r} is missing; restore it from a copy of the run.")
    return resolve(parse(_text(file), str(file)))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(file)!r} cannot be read as text ({error}); give a YAML file in UTF-8.") from error


def write(config: RunConfig) -> str:
    """`config` as YAML text that :func:`resolve` reads back to the same run; the run folder's name is left out."""
    from io import StringIO

    from ruamel.yaml import YAML

    plain = to_dict(config)
    plain.pop("run_dir", None)
    stream = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(plain, stream)
    return stream.getvalue()


def nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Python keywords as nested keys: `a__b` is `a.b`; `algo` and `env` as text are `algo.name` and `env.id`."""
    layer: dict[str, Any] = {}
    for flag, value in flags.items():
        if flag == "env" and callable(value):
            name = getattr(value, "__qualname__", "factory")
            raise UsageError(
                f"env is {value!r}; workers and later commands make it anew from its name, so give that as text, "
                f"such as 'package.module:{name}' or 'path/to/file.py:{name}'."
            )
        path = {"algo": "algo__name", "env": "env__id"}.get(flag, flag) if isinstance(value, str) else flag
        *sections, key = path.split("__")
        place = layer
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UsageError(f"{section} is {place!r}, so {path} has no place; give the name of {section} as text.")
        place[key] = value
    return layer


def resolve(*layers: Mapping[str, Any]) -> RunConfig:
    """The run that nested keys describe, later layers over earlier ones, all over the defaults.

    `measures: none` takes every measure away before the other keys of its own layer, and `measures: default` puts them
    back where an earlier layer has taken them away. `algo.name` in a later layer that differs from an earlier one's
    drops what the earlier layers say of `algo`.
    """
    name = "mappo"
    kept: list[dict[str, Any]] = []
    for layer in layers:
        chosen = _section(layer, "algo").get("name", name)
        if chosen != name:
            kept = [{key: value for key, value in earlier.items() if key != "algo"} for earlier in kept]
        name = chosen
        kept.append(dict(layer))
    config = RunConfig(algo=default_config(name))
    for layer in kept:
        if "measures" in layer:
            before, config = config.measures, override(config, {"measures": layer["measures"]})
            if "none" in (before, config.measures):
                assert isinstance(config.algo, ActorCriticConfig)
                config = replace(config, algo=with_measures(config.algo, config.measures))
        config = override(config, layer)
    return config


def _section(layer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = layer.get(key, {})
    if not isinstance(section, Mapping):
        raise UsageError(f"{key} is {section!r}; it must be a section with keys of its own.")
    return section
