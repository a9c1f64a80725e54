"""Feature squeezing: fewer levels per pixel, computed by ART."""

from __future__ import annotations

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.defences.purifier import ArtPurifier, defence
from advkit.gan.evaluation.subject import Subject
from advkit.models.card import Shape


@defence(
    "feature-squeezing",
    summary="pixels rounded to few levels (through ART)",
    source="Xu, Evans and Qi, NDSS 2018, section III-A",
)
class FeatureSqueezing(ArtPurifier):
    """Rounding has no useful gradient; adaptive attacks replace it by the identity (BPDA)."""

    class Config(StrictModel):
        bit_depth: int = Field(3, ge=1, le=8)
        """Bits per pixel after rounding."""

    def __init__(self, config: Config, subject: Subject | None, shape: Shape) -> None:
        super().__init__(config, subject, shape)
        from art.defences.preprocessor import FeatureSqueezing as Squeezing

        from advkit.integrations.art_defences import Defence

        self.art = Defence(Squeezing(clip_values=(0.0, 1.0), bit_depth=config.bit_depth))
