"""What is seen in the order of its distance."""

from __future__ import annotations

import torch

from marl_stable.envs.particle.nearest import Seen


def test_offsets_and_facts_come_nearest_first_and_equals_in_their_order():
    viewers = torch.tensor([[[0.0, 0.0], [3.0, 0.0]]], dtype=torch.float64)  # (1, 2, 2)
    seen = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]], dtype=torch.float64)
    facts = torch.tensor([[[10.0], [20.0], [30.0]]])
    features = Seen(viewers, seen).nearest_first(facts)
    assert features.dtype == torch.float32
    assert features[0, 0].tolist() == [[0, 1, 20], [0, -1, 30], [2, 0, 10]]
    assert features[0, 1].tolist() == [[-1, 0, 10], [-3, 1, 20], [-3, -1, 30]]


def test_what_is_infinitely_far_comes_last_and_is_nowhere():
    seen = Seen(torch.zeros(2, 1, 2), torch.tensor([[[1.0, 0.0], [0.0, 2.0]]] * 2))
    seen.distance[1, 0, 0] = torch.inf
    features = seen.nearest_first(torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]))
    assert features[:, 0].tolist() == [[[1, 0, 1], [0, 2, 2]], [[0, 2, 4], [0, 0, 3]]]
