"""Networks that hold one set of weights for all agents, or one per agent in a single tensor."""
