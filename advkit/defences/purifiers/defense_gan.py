"""Defense-GAN: the nearest image that a generator can make."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advkit.core.config import StrictModel
from advkit.defences.purifier import Purifier, defence
from advkit.gan.evaluation.subject import Subject
from advkit.models.card import Shape
from advkit.trained_attacks.latent.invert import invert
from advkit.trained_attacks.latent.settings import InversionSettings


@defence(
    "defense-gan",
    summary="the nearest image of a generator's range, by descent from several latent vectors",
    source="Samangouei, Kabkab and Chellappa, ICLR 2018",
)
class DefenseGan(Purifier):
    """Of R starts, L steps each, the one whose image comes nearest (section 4, with Adam). A conditional
    generator is asked for every class, and the nearest of all counts.

    The paper's 10 starts and 200 steps cost 2,000 passes an image, in each step of an attack anew.
    """

    class Config(StrictModel):
        """Parameters."""

        restarts: int = Field(4, ge=1)
        """Latent vectors to start from (R); the paper has 10."""
        steps: int = Field(30, ge=1)
        """Steps from each (L); the paper has 200."""
        rate: float = Field(0.2, gt=0)
        """First step size of Adam; it falls to 0 along half a cosine."""
        fresh: bool = False
        """Draw other starts at every pass, as published, so that the defence is random; else they are always
        the same."""

    config: Config
    needs = "generator"

    def __init__(self, config: Config, subject: Subject | None, shape: Shape) -> None:
        super().__init__(config, subject, shape)
        assert subject is not None  # `build` has made sure
        self.generator, self.classes = subject.generator, subject.classes

    @property
    def random(self) -> bool:
        """Where the starts are fresh."""
        return self.config.fresh

    @property
    def cost(self) -> int:
        """R starts of L steps, one to see where they led, for each class."""
        return self.config.restarts * (self.config.steps + 1) * (self.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        """What the generator makes of the latent vectors that were found."""
        seed = int(torch.randint(2**31, ())) if self.config.fresh else 0
        how = InversionSettings(
            steps=self.config.steps,
            restarts=self.config.restarts,
            rate=self.config.rate,
            seed=seed,
            batch_size=2000,
        )
        same = torch.zeros(len(x), dtype=torch.int64)  # one id for all: an image's starts are not its own
        asked = [None] if self.classes is None else [same + label for label in range(self.classes)]
        found = [invert(self.generator, x.detach(), labels, how, ids=same) for labels in asked]
        errors, images = (
            torch.stack([getattr(each, name) for each in found]) for name in ("error", "images")
        )
        return images[errors.argmin(0), same + torch.arange(len(x))].to(x)
