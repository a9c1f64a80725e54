"""What the names in configurations refer to, so that a recipe's faults are reported before any work.

A field that is annotated with one of these needs no list elsewhere: `advkit.cli.recipes` looks the
name up.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from advkit.core.config import OneOf, ParametersOf, parse_names

_ARCHITECTURES = "advkit.models.network:ARCHITECTURES"
_ATTACKS = "advkit.attacks.attack:ATTACKS"
_DEFENCES = "advkit.defences.purifier:DEFENCES"
_LOSSES = "advkit.gan.loss:GAN_LOSSES"
_OBJECTIVES = "advkit.training.objective:OBJECTIVES"
_REGULARISERS = "advkit.gan.regulariser:REGULARISERS"

DataName = Annotated[str, OneOf("advkit.data.dataset:DATASETS")]
Architecture = Annotated[str, OneOf(_ARCHITECTURES)]
Generative = Annotated[str, OneOf("advkit.models.network:generative")]
"""A pair, or an architecture that is trained as a VAE."""
Pair = Annotated[str, OneOf("advkit.models.network:pairs")]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names)]
"""Names, or one text of names separated by commas."""
AttackNames = Annotated[Names, OneOf("advkit.attacks.ensemble:names")]
"""Ensembles among them."""
CorruptionNames = Annotated[
    tuple[str, ...], BeforeValidator(parse_names), OneOf("advkit.data.corruption:CORRUPTIONS")
]
DefenceName = Annotated[str, OneOf(_DEFENCES)]
GanLossName = Annotated[str, OneOf(_LOSSES)]
RegulariserNames = Annotated[tuple[str, ...], OneOf(_REGULARISERS)]
CheckNames = Annotated[tuple[str, ...], OneOf("advkit.evaluation.check:CHECKS")]
ObjectiveName = Annotated[str, OneOf(_OBJECTIVES)]

ArchitectureParameters = Annotated[dict[str, Any], ParametersOf(_ARCHITECTURES, "{arch}")]
GeneratorParameters = Annotated[dict[str, Any], ParametersOf(_ARCHITECTURES, "{arch}-generator")]
DiscriminatorParameters = Annotated[dict[str, Any], ParametersOf(_ARCHITECTURES, "{arch}-discriminator")]
CopyParameters = Annotated[dict[str, Any], ParametersOf(_ARCHITECTURES, "{copy_arch}")]
DetectorParameters = Annotated[dict[str, Any], ParametersOf(_ARCHITECTURES, "{detector_arch}")]
OpponentParameters = Annotated[dict[str, Any], ParametersOf(_ARCHITECTURES, "{opponent}-discriminator")]
PerturbationParameters = Annotated[dict[str, Any], ParametersOf(_ARCHITECTURES, "advgan-generator")]
AttackParameters = Annotated[dict[str, dict[str, Any]], ParametersOf(_ATTACKS)]
DefenceParameters = Annotated[dict[str, Any], ParametersOf(_DEFENCES, "{defence}")]
GanLossParameters = Annotated[dict[str, Any], ParametersOf(_LOSSES, "{loss}")]
RegulariserParameters = Annotated[dict[str, dict[str, Any]], ParametersOf(_REGULARISERS)]
ObjectiveParameters = Annotated[dict[str, Any], ParametersOf(_OBJECTIVES, "{objective}")]
