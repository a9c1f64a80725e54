"""Which device is taken, on machines with any number of GPUs, and how it computes."""

import pytest
import torch

from advkit.core import device
from advkit.core.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    def there_are(count):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return there_are


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_a_device_is_taken_if_it_is_there(gpus, count):
    gpus(count)
    assert device.choose("auto").type == ("cuda" if count else "cpu")
    assert device.choose("cpu") == torch.device("cpu")
    for name, number in (("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:7", 7), ("cuda:8", 8)):
        if number < count:
            assert device.choose(name) == torch.device(name)
        else:
            with pytest.raises(ConfigError):
                device.choose(name)
    for name in ("gpu", "mps", "meta"):
        with pytest.raises(ConfigError):
            device.choose(name)


@pytest.mark.parametrize("before", [(False, False), (True, False), (False, True), (True, True)])
def test_algorithms_of_a_gpu_are_repeatable_inside_and_as_before_afterwards(monkeypatch, before):
    cudnn = torch.backends.cudnn
    for name, value in zip(("deterministic", "benchmark"), before, strict=True):
        monkeypatch.setattr(cudnn, name, value)
    with pytest.raises(KeyError), device.repeatable():
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        raise KeyError
    assert (cudnn.deterministic, cudnn.benchmark) == before


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
@pytest.mark.parametrize("capability", ["DEFAULT", "AVX2", "AVX512"])
@pytest.mark.parametrize("able", [(), ("avx512_bf16",), ("amx_bf16",), ("bf16",)])
def test_processors_that_multiply_in_bfloat16_do(processor, capability, able, monkeypatch):
    monkeypatch.setattr(
        device.pytorch, "cpu_capabilities", lambda: {"architecture": processor, **dict.fromkeys(able, True)}
    )
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    capped = processor == "x86_64" and capability != "AVX512"
    assert device.computes_bfloat16(torch.device("cpu")) == (bool(able) and not capped)
    assert not device.computes_bfloat16(torch.device("meta"))
