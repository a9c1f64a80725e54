import importlib.util
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location("networks", Path(__file__).with_name("networks.py"))
drawing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drawing)


@pytest.fixture(params=[piece.__name__ for piece in drawing.PIECES])
def piece(request):
    """Of a network, by its name."""
    return getattr(drawing, request.param)


@pytest.fixture
def float64():
    """Whatever is made is in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
