"""Names of what is registered, for Python; ``advkit ls`` lists the same with summaries and sources."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from advkit.core.registry import Registry


def list_attacks(pattern: str = "*") -> list[str]:
    """Names of the attacks and ensembles that `evaluate` takes, and of ART's attacks as ``art:NAME``.

    Args:
        pattern: wildcards as in a shell, in capitals or not: ``"apgd*"``.

    Example:
        >>> list_attacks("*deepfool")
        ['art:DeepFool', 'deepfool']
    """
    from advkit.attacks.attack import ATTACKS
    from advkit.attacks.ensemble import ENSEMBLES
    from advkit.core.errors import ConfigError
    from advkit.integrations import art_index

    try:
        foreign = [f"art:{name}" for name in art_index.supported()]
    except ConfigError:  # ART is not installed
        foreign = []
    return _matching(pattern, [*_names(ATTACKS), *_names(ENSEMBLES), *foreign])


def list_architectures(pattern: str = "*") -> list[str]:
    """Names of the network architectures; generators and discriminators of a GAN are separate ones.

    Args:
        pattern: wildcards as in a shell: ``"*-generator"``.
    """
    from advkit.models.network import ARCHITECTURES

    return _matching(pattern, _names(ARCHITECTURES))


def list_datasets(pattern: str = "*") -> list[str]:
    """Names of the data sets that `load_data` takes, whether downloaded or not.

    Args:
        pattern: wildcards as in a shell: ``"*mnist"``.
    """
    from advkit.data.dataset import DATASETS

    return _matching(pattern, _names(DATASETS))


def _names(registry: Registry[Any]) -> list[str]:
    return [entry.name for entry in registry]


def _matching(pattern: str, names: list[str]) -> list[str]:
    return sorted(name for name in names if fnmatchcase(name.lower(), pattern.lower()))
