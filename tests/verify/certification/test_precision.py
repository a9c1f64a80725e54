"""Proofs are of float32 passes, whatever PyTorch is set to."""

import copy

import torch
from torch import nn

import advkit
from advkit.core import device
from advkit.core.threat import Threat
from advkit.models.load import wrap


class Noting(nn.Linear):
    """Notes in what float32 is computed whenever it is asked."""

    seen: list[bool]

    def forward(self, x):
        self.seen.append(device.coarse_float32(torch.device("cpu")))
        return super().forward(x)


def test_a_process_that_allows_coarser_passes_is_told_and_left_as_it_was(coarse):
    last = Noting(16, 2)
    last.seen = []
    model = wrap(nn.Sequential(nn.Flatten(), last), shape=(1, 4, 4)).eval()
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    asked = len(last.seen)
    result = advkit.certify(model, (images, labels), Threat("linf", 0.001))
    assert False in last.seen[asked:] and last.seen[0]
    assert device.coarse_float32(torch.device("cpu"))
    with device.exact_float32():
        exact = advkit.certify(model, (images, labels), Threat("linf", 0.001))
    assert len(result.notes) == 1 + len(exact.notes)


def test_a_network_of_float64_is_certified_like_the_same_of_float32():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = network(images).argmax(1)
    twice = [
        advkit.certify(one, (images, labels), Threat("linf", 0.01), method="complete")
        for one in (network, copy.deepcopy(network).double())
    ]
    assert twice[0].certified_correct == twice[1].certified_correct > 0
    assert [one.status for one in twice[0].verdicts] == [one.status for one in twice[1].verdicts]
