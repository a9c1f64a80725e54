"""How many classes weights were trained for does not depend on their order in the file."""

from pathlib import Path

import pytest
import torch

from advkit.models.load import load_model
from advkit.models.network import build


@pytest.mark.parametrize("arch", ["torchvision:squeezenet1_1", "small-cnn"])
def test_the_head_says_it_wherever_it_is_in_the_file(arch: str, tmp_path: Path) -> None:
    shape = (3, 32, 32)
    if ":" in arch:
        network = load_model(arch, weights="none", classes=7, shape=shape).network
    else:
        network = build(arch, shape=shape, classes=7)
    state = network.eval().state_dict()
    torch.save(dict(sorted(state.items(), reverse=True)), tmp_path / "shuffled.pt")
    read = load_model(tmp_path / "shuffled.pt", arch=arch, shape=shape).eval()
    assert read.card.classes == 7
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(read(x), network(x))
