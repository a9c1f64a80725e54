"""Settings for the model that a command is given, and its data; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator

from advkit.core.config import StrictModel
from advkit.core.names import Architecture, DataName


class ForeignModel(StrictModel):
    """Keys for models without a card; a model with one needs none of them."""

    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""
    weights: str | None = None
    """Weights file, for a library's NAME and package.module:function."""
    weights_key: str | None = None
    """Which state dict of a file that holds several: its key, or the prefix of its names."""
    shape: tuple[int, int, int] | None = None
    """Image shape of a foreign model: channels, height, width; by default those of the data."""
    pixel_range: tuple[float, float] = (0.0, 1.0)
    """Input range of a foreign model: (lowest, highest) pixel value."""
    mean: tuple[float, ...] = ()
    """A foreign model's normalisation, per channel, in units of its pixel range."""
    std: tuple[float, ...] = ()
    """A foreign model's normalisation, per channel, in units of its pixel range."""
    outputs: Literal["logits", "probabilities"] = "logits"
    """Outputs of a foreign model."""
    allow_torchscript: bool = False
    """Run a model file of TorchScript, which holds code: of those alone that you trust."""
    access: Literal["scores", "decisions"] | None = None
    """The model is a black box, a package.module:function from arrays (N,C,H,W) to scores or classes."""
    max_queries: int | None = Field(None, ge=1)
    """Largest number of images that a black box is sent about one image, all attempts counted."""
    max_total_queries: int | None = Field(None, ge=1)
    """The same of a whole run; each image has an equal share."""

    @property
    def said(self) -> dict[str, Any]:
        """The same as arguments of `advkit.load_model`."""
        return {name: getattr(self, name) for name in ForeignModel.model_fields}


class SubjectFields(StrictModel):
    """A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, advkit:NAME (such as advkit:digits-robust),
    torchvision:NAME, timm:NAME, hf:NAME, hf:FOLDER, or package.module:function."""
    data: DataName | None = None
    """Data set (see `advkit ls data`); by default what the classifier was trained on."""
    split: Literal["test", "train", "all"] | None = None
    """Which part of the data; by default test where there is such a split, else all of it."""
    n: int | None = Field(None, ge=1)
    """Use only N images: the first ones, or a class-balanced sample of rows that are in class order."""
    first: bool = False
    """With --n, the first images in any case."""


class BroughtData(StrictModel):
    """How image files fit a model."""

    resize: tuple[int, ...] | None = Field(None, max_length=2)
    """For image files: their shorter side, or height,width; as torchvision's Resize."""
    crop: int | None = Field(None, ge=1)
    """For image files: side of the square that is cut out of the middle, after --resize."""
    classes: str | None = None
    """File with the names of the model's classes, in the order of its outputs; classes of the data are found
    by their names. Or their number, where the data do not say: with 2, one output is the logit of class 1."""

    @field_validator("classes", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("resize", mode="before")
    @classmethod
    def _one_side(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value


class SubjectSettings(BroughtData, ForeignModel, SubjectFields):
    """A classifier, and the images that it is evaluated on."""

    @property
    def identity(self) -> Self:
        """With the split of older runs where none is chosen: a run has the hash of its images beside it."""
        return super().identity.model_copy(update={"split": self.split or "test"})
