"""SABR: interval bounds of small boxes around adversarial examples, tighter than those of the whole ball."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from advkit.attacks.perturb import fixed
from advkit.core.config import Fraction
from advkit.core.threat import Threat
from advkit.training.certified import Bounded, Certified, CertifiedConfig
from advkit.training.objective import Batch, Passes, objective


@objective(
    "small-box",
    summary="interval bounds of a small box around a PGD example (SABR): more accurate, certifies less",
    source="Mueller et al., Certified Training: Small Boxes are All You Need, ICLR 2023 (SABR)",
)
class SmallBox(Certified):
    """PGD goes as far as (1 - share) eps in any pixel. The box of share eps around the point where it ends
    lies inside the ball; its worst outputs are trained on."""

    class Config(CertifiedConfig):
        """Parameters."""

        share: Fraction = Field(0.6, gt=0, lt=1)
        """Of eps, what the box has (lambda): the authors take 0.4 on MNIST at linf 0.1 and 0.6 at 0.3. The
        larger it is, the more is proved."""
        steps: int = Field(8, ge=1)
        """Gradient steps of PGD."""
        clean_weight: Fraction = Field(0.0, ge=0, le=1)
        """Share of the loss that clean images have once eps is full; at the beginning they are all."""

    config: Config
    criterion = ""
    """PGD chooses: of what small boxes train, intervals may prove nothing for long."""

    @property
    def passes(self) -> Passes:
        """PGD's in addition."""
        return Passes(*(count + self.config.steps for count in super().passes))

    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) nowhere better than the worst in the small box alone."""
        eps, share = self.eps(batch), self.config.share
        centre = fixed(
            model,
            x,
            y,
            threat=Threat("linf", (1 - share) * eps),
            attack="pgd",
            parameters={"steps": self.config.steps},
            ids=batch.ids,
            seed=batch.seed,
            step=batch.step,
        )
        return seen.worst(centre, share * eps, y)
