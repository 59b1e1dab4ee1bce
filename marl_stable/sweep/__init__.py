"""`marl-stable sweep`: seeds and grids of settings, each run a process of its own. Imports no torch."""
