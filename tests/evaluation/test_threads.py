"""What holds with several threads, where float32 sums depend on the batch size."""

import json
import os
import subprocess
import sys

SCRIPT = """
import json, torch, advkit
from advkit.core import rng
from advkit.models.network import build

assert torch.get_num_threads() == 2
with rng.scope("cpu", 0, "test"):
    network = build("small-cnn", shape=(1, 28, 28), classes=10).eval()
x = rng.uniform(rng.keys(0, "images", torch.arange(66)), (1, 28, 28))
with torch.no_grad():
    y = network(x).argmax(1)
threat = advkit.Threat("l2", 1.0)
plan = {"attack": "pgd", "parameters": {"pgd": {"steps": 10}}, "precision": "float32"}
found = [advkit.evaluate(network, (x, y), threat, batch_size=size, **plan) for size in (16, 17, 33)]
print(json.dumps([[verdict.status for verdict in one.verdicts] for one in found]))
"""


def test_verdicts_do_not_depend_on_the_batch_size():
    """On a convolutional network, whose sums are shared out over two threads."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | threads, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout)
    assert first == second == third
    assert set(first) == {"broken", "robust"}
