"""Black boxes: models that only answer queries, with a true count of the rows they were sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, ModelError
from advkit.core.journal import Journal
from advkit.core.notes import Note
from advkit.models.card import Shape

Answers = Literal["scores", "decisions"]
"""What a black box gives for an image: a number for each class, or the class alone."""


class QueryCount(StrictModel):
    """The queries of one run to a black box. A query is one image (a row) in one attempt to send it."""

    access: Answers
    max_queries: int | None
    """Largest number about one image."""
    max_total_queries: int | None
    """Largest number in total."""
    total: int
    """Rows that were sent: to classify the original images, by attacks, and to confirm successes; after a
    failure, each attempt again."""
    answered: int
    """Rows among them whose answer arrived."""
    mean: float
    """Of the total per image."""
    median: float
    stopped: int
    """Images whose queries are used up."""

    def limit(self, n: int) -> int | None:
        """Largest number about each of ``n`` images."""
        return limit_of_each(n, self.max_queries, self.max_total_queries)


def limit_of_each(n: int, max_queries: int | None, max_total_queries: int | None) -> int | None:
    """Queries about each of ``n`` images: with several limits the smaller; a total is divided equally."""
    share = None if max_total_queries is None else max_total_queries // n
    return min((limit for limit in (max_queries, share) if limit is not None), default=None)


class Account:
    """The rows that were sent about each image, and their limits.

    With several limits the smaller counts, and a total is divided among the images equally, so that what is
    found on an image does not depend on others.

    Args:
        ids: of the images; empty: any.
        max_queries: limit per image.
        max_total_queries: limit in total.
        path: a file that keeps what was sent before it is sent, so that a killed run goes on with the rest.

    Raises:
        ConfigError: the total does not allow one query per image.
    """

    def __init__(
        self,
        ids: Iterable[int] = (),
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        path: Path | None = None,
    ) -> None:
        self.ids = list(ids)
        self.max_queries, self.max_total_queries = max_queries, max_total_queries
        self.wall = limit_of_each(len(self.ids), max_queries, max_total_queries) if self.ids else max_queries
        if self.wall == 0:
            raise ConfigError(
                f"{max_total_queries} queries in total are fewer than one for each of {len(self.ids)} "
                "images; raise --max-total-queries, or attack fewer images with --n"
            )
        self.sent: Counter[int | None] = Counter()
        """Rows by image; None: about no known image."""
        self.answered = 0
        self.clean: dict[int, list[float]] = {}
        """Answers to the original images."""
        self._journal = None if path is None else Journal(path, "advkit/queries", 1)
        for line in self._journal.read() if self._journal is not None else ():
            fact = json.loads(line)
            self.sent.update({int(key): count for key, count in fact.get("sent", {}).items()})
            self.answered += fact.get("answered", 0)
            self.clean |= {int(key): logits for key, logits in fact.get("clean", {}).items()}

    @property
    def total(self) -> int:
        """Rows that were sent."""
        return self.sent.total()

    def left(self, sample: int) -> float:
        """How many rows may still be sent about an image."""
        return float("inf") if self.wall is None else self.wall - self.sent[sample]

    def charge(self, samples: Sequence[int | None]) -> list[int]:
        """The places of those rows that may be sent, which count as sent from now on."""
        places, total, news = [], self.total, Counter[int | None]()
        for place, sample in enumerate(samples):
            spent = self.wall is not None and sample is not None and self.sent[sample] >= self.wall
            if spent or (self.max_total_queries is not None and total >= self.max_total_queries):
                continue
            self.sent[sample] += 1
            news[sample] += 1
            total += 1
            places.append(place)
        if places:
            self._write({"sent": {str(-1 if key is None else key): count for key, count in news.items()}})
        return places

    def receive(self, rows: int) -> None:
        """An answer to so many rows arrived."""
        self.answered += rows
        self._write({"answered": rows})

    def keep_clean(self, ids: Sequence[int], logits: Tensor) -> None:
        """Keeps the answers (N, K) to original images, which are not asked again."""
        answers = dict(zip(ids, logits.tolist(), strict=True))
        self.clean |= answers
        self._write({"clean": {str(key): values for key, values in answers.items()}})

    def count(self, access: Answers) -> QueryCount:
        """What a result says."""
        each = [self.sent[sample] for sample in self.ids]
        return QueryCount(
            access=access,
            max_queries=self.max_queries,
            max_total_queries=self.max_total_queries,
            total=self.total,
            answered=self.answered,
            mean=sum(each) / max(len(each), 1),
            median=float(median(each)) if each else 0.0,
            stopped=sum(self.left(sample) <= 0 for sample in self.ids),
        )

    def close(self) -> None:
        """The file is at rest."""
        if self._journal is not None:
            self._journal.close()

    def _write(self, fact: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.add(json.dumps(fact))


class BlackBox(nn.Module):
    """A classifier that only answers queries: a function of arrays, a service, an object of another library.

    `evaluate`, `perturb` and `load_model` take it as a model. No gradient is asked of it, and nothing is
    checked that would cost queries. **Every row that is sent counts**, also a row that is sent again after a
    failure: the service may have answered it.

    Args:
        predict: images, a float32 array (N, C, H, W) with pixels in ``pixel_range``, to scores (N, K) or
            classes (N,). Or an object with ``predict_proba`` or ``predict`` (scikit-learn, xgboost), which is
            given rows (N, C * H * W); a black-box classifier of ART; or a module, such as a quantised one,
            which is given tensors.
        classes: number of classes; by default what the object says, else that of the data.
        shape: of an image, (C, H, W); by default that of the data.
        access: what an attack may see: ``"scores"``, or ``"decisions"``, the class of the largest score.
        max_queries: the largest number of rows that are sent about one image in a run; None: no limit.
        max_total_queries: the largest number in total of a run; each image has an equal share.
        pixel_range: (lowest, highest) pixel value that it takes.
        outputs: whether scores are probabilities, which are compared by their logarithms; by default those of
            ``predict_proba`` are.
        retries: how often a batch is sent again after an ``OSError``, which ``ConnectionError``,
            ``TimeoutError`` and those of urllib and requests are.

    Raises:
        ConfigError: limits that are not positive, or unknown ``access`` or ``outputs``.

    Example:
        >>> import advkit, numpy as np, torch
        >>> box = advkit.BlackBox(lambda x: np.stack([x.mean((1, 2, 3)), 0.5 + 0 * x[:, 0, 0, 0]], 1),
        ...                       classes=2, shape=(1, 4, 4), max_queries=20)
        >>> found = advkit.perturb(box, torch.full((2, 1, 4, 4), 0.45), [1, 1], ("linf", 0.1), "square")
        >>> bool(found.success.all()), int(found.forwards.max()) <= 20
        (True, True)
    """

    def __init__(
        self,
        predict: Any,
        *,
        classes: int | None = None,
        shape: Shape | None = None,
        access: Answers = "scores",
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        pixel_range: tuple[float, float] = (0.0, 1.0),
        outputs: Literal["logits", "probabilities"] | None = None,
        retries: int = 2,
    ) -> None:
        super().__init__()
        if access not in ("scores", "decisions"):
            raise ConfigError(f'access is {access!r}; it must be "scores" or "decisions"')
        if outputs not in (None, "logits", "probabilities"):
            raise ConfigError(f'outputs is {outputs!r}; it must be "logits" or "probabilities"')
        limits = {"max_queries": max_queries, "max_total_queries": max_total_queries, "retries": retries + 1}
        for name, limit in limits.items():
            if limit is not None and limit < 1:
                raise ConfigError(f"{name} is too small; choose a larger one")
        self.access, self.retries = access, retries
        self.max_queries, self.max_total_queries = max_queries, max_total_queries
        self.pixel_range, self.outputs = pixel_range, outputs
        self.named = f"{type(predict).__module__}:{type(predict).__qualname__}"
        if hasattr(predict, "__qualname__"):
            self.named = f"{predict.__module__}:{predict.__qualname__}"
        self.how = ""
        """How images and answers are converted, a sentence."""
        self.labels: list[Any] | None = None
        """The classes that an estimator names, in the order of their numbers."""
        self._predict = self._asking(predict, access)
        own = len(self.labels) if self.labels is not None else getattr(predict, "nb_classes", None)
        said = getattr(predict, "input_shape", None)
        self.classes = classes or own
        """As was said."""
        self.known = self.classes
        """As was said, or the number of scores of the first answer."""
        self.shape: Shape | None = shape or (tuple(said) if said and len(said) == 3 else None)
        self.features: int | None = getattr(predict, "n_features_in_", None)
        self.account = Account((), max_queries, max_total_queries)
        self._samples: list[int] | None = None

    def _asking(self, predict: Any, access: Answers) -> Callable[[np.ndarray], Any]:
        if isinstance(predict, nn.Module):
            self.module = predict  # so that its mode and its weights are those of the model
            return partial(_tensors, predict)
        estimator = hasattr(predict, "predict_proba")
        if estimator or (hasattr(predict, "predict") and hasattr(predict, "classes_")):
            self.labels = [*predict.classes_] if hasattr(predict, "classes_") else None
            method = predict.predict_proba if estimator else predict.predict
            self.outputs = self.outputs or ("probabilities" if estimator else None)
            self.how = "each image is given as one row of its values, channels first"
            return lambda x: method(x.reshape(len(x), -1))
        if callable(predict):
            return predict  # type: ignore[no-any-return]
        if callable(getattr(predict, "predict", None)):
            return predict.predict  # type: ignore[no-any-return]
        raise ConfigError(f"a {type(predict).__name__} answers no queries; give a function of arrays")

    @property
    def note(self) -> Note:
        """What a reader of a number has to know."""
        low, high = self.pixel_range
        limits = [
            f"at most {limit:,} queries {what}"
            for limit, what in ((self.max_queries, "per image"), (self.max_total_queries, "in total"))
            if limit is not None
        ]
        parts = [
            f"a black box that gives {self.access}, on pixels from {low:g} to {high:g}",
            ", ".join(limits) or "without a limit of queries (--max-queries)",
            *([self.how] if self.how else []),
            "its gradient, determinism and batches are not checked, which would cost queries",
        ]
        return Note("black-box", "; ".join(parts))

    @contextmanager
    def counting(self, ids: Iterable[int], path: Path | None = None) -> Iterator[Account]:
        """Inside, queries about the images with these ids count on an account of their own."""
        account = Account(ids, self.max_queries, self.max_total_queries, path)
        before, self.account = self.account, account
        try:
            yield account
        finally:
            account.close()
            self.account = before

    @contextmanager
    def about(self, samples: Tensor | None) -> Iterator[None]:
        """Inside, the rows are about the images with these ids (R,)."""
        self._samples = None if samples is None else samples.tolist()
        try:
            yield
        finally:
            self._samples = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) scores; one-hot for decisions. NaN in rows that were not sent, because of a limit."""
        if not isinstance(x, Tensor) or (torch.is_grad_enabled() and x.requires_grad):
            raise ModelError(
                "a black box has neither gradients nor layers; attack it by queries (--attack square, or "
                "hop-skip-jump for decisions), or with --surrogate",
                code="black-box",
            )
        samples = self._samples if self._samples is not None else [None] * len(x)
        images = x.detach().cpu().float().numpy()
        fault: OSError | None = None
        for _ in range(self.retries + 1):
            places = self.account.charge(samples)
            if not places:
                break
            try:
                answer = self._predict(images[places])
            except OSError as error:
                fault = error
                continue
            except (Exception, SystemExit) as error:  # the user's own code
                raise ModelError(
                    f"the black box {self.named} fails on {len(places)} images of shape "
                    f"{tuple(images.shape[1:])} ({type(error).__name__}: {error}); check what it takes"
                ) from error
            scores = self._read(answer, len(places)).to(x.device)
            self.account.receive(len(places))
            if len(places) == len(x):
                return scores
            whole = scores.new_full((len(x), scores.shape[1]), torch.nan)
            whole[places] = scores
            return whole
        else:
            raise ModelError(
                f"the black box {self.named} gave no answer in {self.retries + 1} attempts "
                f"({type(fault).__name__}: {fault}); repeat the command when it does, or raise retries"
            ) from fault
        return x.new_full((len(x), self.known or 1), torch.nan)

    def _read(self, answer: Any, rows: int) -> Tensor:
        """(rows, K) float32 of what ``predict`` returned."""
        wanted = f"({rows}, classes) numbers" + (f", or ({rows},) classes" if self.access != "scores" else "")
        try:
            given = np.asarray(answer.detach().cpu().double() if isinstance(answer, Tensor) else answer)
            if self.labels is not None and given.ndim == 1 and self.access == "decisions":
                given = np.array([self.labels.index(label) for label in given.tolist()])
            given = given.astype(np.float64)
        except (TypeError, ValueError) as error:  # no numbers, lists of unequal length, an unknown label
            raise ModelError(
                f"the black box {self.named} answered {rows} images by what are no numbers ({error}); return "
                f"{wanted}"
            ) from error
        if given.ndim == 2 and given.shape[1] == 1 and self.access == "decisions":
            given = given[:, 0]
        whole = bool((given == np.round(given)).all())
        if given.ndim not in (1, 2) or len(given) != rows or (given.ndim == 1 and self.access == "scores"):
            single = given.size == rows and not whole
            raise ModelError(
                f"the black box {self.named} answered {rows} images by shape {given.shape}; return {wanted}"
                + (", such as 1 - p and p of the probability p of class 1" if single else "")
                + (", or say access='decisions'" if given.shape == (rows,) and whole else "")
            )
        if given.ndim == 2:
            self.known = self.known or given.shape[1]
            if given.shape[1] != self.known or not np.isfinite(given).all():
                raise ModelError(
                    f"the black box {self.named} answered {given.shape[1]} scores an image, some perhaps not "
                    f"finite; {self.known} finite ones are wanted"
                )
            scores = torch.from_numpy(given.astype(np.float32))
            if self.access == "scores":
                return scores
            given = given.argmax(1)
        elif not whole:
            raise ModelError(
                f"the black box {self.named} answered {rows} images by {rows} numbers that are no classes; "
                f"return {wanted}"
            )
        if self.known is None:
            raise ConfigError("a black box that gives classes does not say how many there are; say classes=")
        chosen = torch.from_numpy(given.astype(np.int64))
        if int(chosen.min()) < 0 or int(chosen.max()) >= self.known:
            raise ModelError(
                f"the black box {self.named} answered classes from {int(chosen.min())} to "
                f"{int(chosen.max())}, but there are {self.known} from 0; return their numbers"
            )
        return nn.functional.one_hot(chosen, self.known).float()


def black_box(model: nn.Module) -> BlackBox | None:
    """The black box that ``model`` is."""
    inner = getattr(model, "network", model)
    return inner if isinstance(inner, BlackBox) else None


def counted(
    model: nn.Module, ids: Iterable[int], path: Path | None = None
) -> AbstractContextManager[Account | None]:
    """`BlackBox.counting` of a model that is a black box; of another one nothing is counted."""
    box = black_box(model)
    return nullcontext() if box is None else box.counting(ids, path)


@torch.no_grad()
def _tensors(module: nn.Module, x: np.ndarray) -> Any:
    return module(torch.from_numpy(np.ascontiguousarray(x)))
