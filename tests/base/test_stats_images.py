import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from advkit import images
from advkit.stats import accuracy, clopper_pearson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (905, 1000), (1, 2)])
def test_interval_agrees_with_scipy(successes, n):
    expected = binomtest(successes, n).proportion_ci(method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((expected.low, expected.high))


def test_accuracy_in_words():
    assert accuracy(181, 200) == "90.5 % [85.6, 94.2]"


def test_grid_puts_images_where_they_belong():
    pictures = torch.stack([torch.full((1, 2, 3), value) for value in (0.0, 0.5, 1.0)])
    sheet = images.grid(pictures, columns=2)
    assert sheet.shape == (1, 7, 9)
    assert sheet[0, 1:3, 1:4].eq(0).all() and sheet[0, 1:3, 5:8].eq(128).all()
    assert sheet[0, 4:6, 1:4].eq(255).all() and sheet[0, 0].eq(255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_read_back(channels):
    image = torch.arange(channels * 20, dtype=torch.uint8).view(channels, 4, 5)
    read = np.asarray(Image.open(io.BytesIO(images.png_bytes(image, zoom=3))))
    assert read.shape[:2] == (12, 15)
    assert np.array_equal(read.reshape(12, 15, channels)[::3, ::3], image.permute(1, 2, 0).numpy())
