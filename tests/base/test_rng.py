import torch

from advkit import rng

GOLDEN_SEED = 6790568129067196536
GOLDEN_KEYS = [7028484594911121439, 6262048418017246148]


def test_numbers_do_not_depend_on_the_company():
    ids = torch.arange(50)
    whole = rng.normal(rng.keys(3, "a", ids, 7), (2, 3))
    alone = torch.cat([rng.normal(rng.keys(3, "a", ids[i : i + 1], 7), (2, 3)) for i in range(50)])
    assert torch.equal(whole, alone)
    per_row = rng.keys(3, "a", ids, torch.full((50,), 7))
    assert torch.equal(rng.keys(3, "a", ids, 7), per_row)


def test_seed_stream_id_and_step_all_matter():
    one = torch.tensor([5])
    drawn = {
        float(rng.uniform(rng.keys(*place), (1,)))
        for place in [
            (0, "a", one, 0),
            (1, "a", one, 0),
            (0, "b", one, 0),
            (0, "a", one + 1, 0),
            (0, "a", one, 1),
        ]
    }
    assert len(drawn) == 5


def test_moments():
    key = rng.keys(0, "m", torch.arange(2000))
    uniform, normal = rng.uniform(key, (100,)), rng.normal(key, (100,))
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.003 and abs(uniform.var() - 1 / 12) < 0.001
    assert abs(normal.mean()) < 0.01 and abs(normal.var() - 1) < 0.02
    assert abs((normal**4).mean() - 3) < 0.1
    assert torch.corrcoef(uniform.T).triu(1).abs().max() < 0.12
    counts = torch.bincount(rng.integers(key, (100,), 7).flatten(), minlength=7)
    assert counts.min() > 0.95 * 200_000 / 7


def test_known_values_stay():
    """Results recorded by one version must be found again by the next."""
    key = rng.keys(0, "golden", torch.arange(2))
    assert rng.derive(0, "golden") == GOLDEN_SEED
    assert key.tolist() == GOLDEN_KEYS


def test_permutation_and_scope():
    assert rng.permutation(0, "p", 100).sort().values.equal(torch.arange(100))
    assert not rng.permutation(0, "p", 100, 0).equal(rng.permutation(0, "p", 100, 1))
    state = torch.get_rng_state()
    with rng.scope("cpu", 1, "x"):
        first = torch.rand(3)
    with rng.scope("cpu", 1, "x"):
        again = torch.rand(3)
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
