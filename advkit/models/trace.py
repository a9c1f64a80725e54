"""Tracing with `torch.fx` that no other module of the process notices.

`torch.fx.symbolic_trace` replaces ``nn.Module.__call__`` and ``nn.Module.__getattr__`` while it traces, so a
module that another thread calls at that moment runs through the tracer. `Tracer` gives other methods to a
copy of the network instead, which shares its tensors.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn


class Tracer(fx.Tracer):
    """A `torch.fx.Tracer` for use in threads. Functions that were wrapped with `torch.fx.wrap`, and those of
    `math`, are not recorded as calls; where they cannot take a symbol, the network cannot be traced."""

    def traced(self, network: nn.Module) -> fx.GraphModule:
        """The graph of ``network``, whose parameters and buffers are the network's own.

        Raises:
            Exception: of any kind, where the network cannot be traced.
        """
        twins: dict[nn.Module, nn.Module] = {}
        network = unwrapped(network)
        self.root = _twin(network, twins)
        self.root_module_name = type(network).__name__
        self.submodule_paths = {module: name for name, module in self.root.named_modules()}
        self.graph = fx.Graph(tracer_cls=type(self))
        self.tensor_attrs = {
            value: f"{path}.{name}" if path else name
            for path, module in self.root.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        }
        proxies: dict[str, Any] = {}
        images = self.create_proxy("placeholder", "images", (), {})  # what else it may be given has defaults
        for module, twin in twins.items():
            twin.__class__ = _recorded(type(module), self, proxies)
        try:
            outputs = self.create_arg(type(network).forward(self.root, images))
            self.create_node("output", "output", (outputs,), {})
        finally:
            for module, twin in twins.items():
                twin.__class__ = type(module)
            self.submodule_paths = None
        return fx.GraphModule(self.root, self.graph)


def unwrapped(module: nn.Module) -> nn.Module:
    """What computes the outputs of a module that `torch.compile` or ``DataParallel`` has wrapped."""
    while (inner := _inner(module)) is not None:
        module = inner
    return module


def _inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner: nn.Module = module.module
        return inner
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def _twin(module: nn.Module, twins: dict[nn.Module, nn.Module]) -> nn.Module:
    """A copy of a module and all below it, with the same tensors and attributes, without wrappers."""
    module = unwrapped(module)
    if module not in twins:
        twins[module] = twin = object.__new__(type(module))
        vars(twin).update(vars(module))
        below = {name: child and _twin(child, twins) for name, child in module._modules.items()}
        own = {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers), "_modules": below}
        vars(twin).update(own)
    return twins[module]


def _recorded(kind: type[nn.Module], tracer: Tracer, proxies: dict[str, Any]) -> type[nn.Module]:
    """The class whose modules tell the tracer of calls, and of parameters that are looked up."""

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return kind.__call__(module, *args, **kwargs)

        return tracer.call_module(module, forward, args, kwargs)

    def look_up(module: nn.Module, name: str) -> Any:
        return tracer.getattr(name, kind.__getattr__(module, name), proxies)

    own = {"__module__": kind.__module__, "__call__": call, "__getattr__": look_up}
    return type(kind.__name__, (kind,), own)
