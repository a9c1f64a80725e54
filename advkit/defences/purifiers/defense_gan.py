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
    """The nearest image over R restarts of L descent steps each (section 4, with Adam). A conditional
    generator is searched in every class, and the nearest image of all is used.

    The paper's 10 restarts of 200 steps cost 2,000 passes per image in every step of an attack.
    """

    class Config(StrictModel):
        restarts: int = Field(4, ge=1)
        """Latent vectors to start from (R); the paper has 10."""
        steps: int = Field(30, ge=1)
        """Steps from each (L); the paper has 200."""
        rate: float = Field(0.2, gt=0)
        """Initial learning rate of Adam; it decays to 0 by a cosine schedule."""
        fresh: bool = False
        """Draw new starts in every pass, as published, which makes the defence random; by default the starts
        are fixed."""

    config: Config
    needs = "generator"

    def __init__(self, config: Config, subject: Subject | None, shape: Shape) -> None:
        super().__init__(config, subject, shape)
        assert subject is not None  # checked by `build`
        self.generator, self.classes = subject.generator, subject.classes

    @property
    def random(self) -> bool:
        """Whether the starts are fresh."""
        return self.config.fresh

    @property
    def cost(self) -> int:
        """R restarts of L steps, and one evaluation of each, for each class."""
        return self.config.restarts * (self.config.steps + 1) * (self.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        """The generator's images at the latent vectors that were found."""
        seed = int(torch.randint(2**31, ())) if self.config.fresh else 0
        how = InversionSettings(
            steps=self.config.steps,
            restarts=self.config.restarts,
            rate=self.config.rate,
            seed=seed,
            batch_size=2000,
        )
        same = torch.zeros(len(x), dtype=torch.int64)  # one id for all: every image has the same starts
        labelled = [None] if self.classes is None else [same + label for label in range(self.classes)]
        found = [invert(self.generator, x.detach(), labels, how, ids=same) for labels in labelled]
        errors, images = (
            torch.stack([getattr(each, name) for each in found]) for name in ("error", "images")
        )
        return images[errors.argmin(0), same + torch.arange(len(x))].to(x)
