"""The environment doctor: what is wrong with one PettingZoo or Gymnasium environment, before anything is trained.

It plays the environment as its author wrote it, not through this package's adapter, which forgives or refuses what is
to be named here. NumPy only.
"""
