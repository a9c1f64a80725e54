"""JPEG compression, computed by ART."""

from __future__ import annotations

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.defences.purifier import ArtPurifier, defence
from advkit.gan.evaluation.subject import Subject
from advkit.models.card import Shape


@defence(
    "jpeg",
    summary="compressed as JPEG and read again (through ART)",
    source="Dziugaite, Ghahramani and Roy 2016; Guo et al., ICLR 2018",
)
class Jpeg(ArtPurifier):
    """Compression has no useful gradient; adaptive attacks replace it by the identity (BPDA)."""

    class Config(StrictModel):
        quality: int = Field(50, ge=1, le=95)
        """Of the JPEG file."""

    def __init__(self, config: Config, subject: Subject | None, shape: Shape) -> None:
        super().__init__(config, subject, shape)
        from art.defences.preprocessor import JpegCompression

        from advkit.integrations.art_defences import Defence

        made = JpegCompression(clip_values=(0.0, 1.0), quality=config.quality, channels_first=True)
        self.art = Defence(made)
