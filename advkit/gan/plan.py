"""Configurations of GAN training and sampling; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.config import StrictModel


class GanTraining(StrictModel):
    """Train a generator and a discriminator against each other.

    The defaults draw varied digits of the bundled 8x8 data in about 20 seconds, and leave a convolutional
    discriminator, which makes a better classifier than the dense one of mlp-gan.
    """

    data: str = "digits"
    """Data set to learn (see `advkit ls data`)."""
    arch: str = "conv-gan"
    """Generator and discriminator pair (see `advkit ls pairs`)."""
    loss: str = "non-saturating"
    """Objective of the game (see `advkit ls gan-losses`)."""
    steps: int = Field(1000, ge=1)
    """Updates of the discriminator, each followed by one of the generator."""
    batch_size: int = Field(64, ge=2)
    """Real images a step, and as many generated ones."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    rate_generator: float = Field(2e-4, gt=0)
    """Adam's learning rate for the generator."""
    rate_discriminator: float = Field(2e-4, gt=0)
    """Adam's learning rate for the discriminator."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam's first moment decay, for both."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged generator, a step; ramped up over the first steps."""
    sample_every: int = Field(400, ge=1)
    """Steps between grids of samples from one fixed noise."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between states to resume from."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the networks; weights and updates stay in float32."""
    name: str | None = None
    """Prefix of the names in the model store; by default DATA-PAIR."""
    parameters: dict[str, Any] = {}
    """The loss's own parameters, as --set parameters.KEY=VALUE."""
    generator: dict[str, Any] = {}
    """The generator's own parameters, as --set generator.KEY=VALUE."""
    discriminator: dict[str, Any] = {}
    """The discriminator's own parameters, as --set discriminator.KEY=VALUE."""


class Sampling(StrictModel):
    """Draw images from a trained generator: a grid into a .png, or arrays into an .npz (x: 8-bit images,
    y: their classes where they are known, z: their latent vectors)."""

    model: str
    """Generator: a file, a run folder or a name in the store."""
    n: int = Field(100, ge=1)
    """How many images."""
    seed: int = Field(0, ge=0)
    """Which images: the same seed draws the same ones, however many are asked for."""
    labels: bool = False
    """Insist on classes, the same number of images of each: a conditional generator always has them, any
    other needs --classifier."""
    classifier: str | None = None
    """Classifier that tells the images' classes: a file, a run folder or a name in the store. Only images
    that it is sure of are kept, the same number of each class."""
    confidence: float = Field(0.9, ge=0, le=1)
    """Least probability of the class that --classifier tells."""
    columns: int | None = Field(None, ge=1)
    """Images in a row of the grid; by default as many as there are rows."""
