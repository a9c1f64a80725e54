"""Compare generators by their metrics."""

from __future__ import annotations

from advkit.commands.gan_eval import judged
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.gan.evaluation.settings import GanComparison as Config
from advkit.report.outcome import Outcome

GROUP = "GANs"
EXAMPLE = "advkit gan-compare mnist-conv-gan-ema mnist-mlp-gan-ema --data mnist"
OPERANDS = "model"


def run(config: Config, context: Context) -> Outcome:
    """Measures several generators on the same real images.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    if len(set(config.model)) < len(config.model):
        raise ConfigError(f"a model is named twice in {', '.join(config.model)}; name each once")
    return judged("gan-compare", config.model, config, context)
