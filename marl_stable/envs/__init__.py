"""Environments. `catalog.py` finds one by its id; one file per family turns its steps into tensors."""

if __name__ != "marl_stable.envs":  # the top-level link `envs` is for readers, not for imports
    raise ImportError("import marl_stable.envs, not envs: the link at the top level only shows the room.")
