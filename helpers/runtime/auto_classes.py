"""Makes transformers' Auto classes know our models after `import helpers`, which imports neither them nor PyTorch.

Our classes register themselves when their module is imported. That is done by the first `from_pretrained` of AutoConfig
or AutoModel, whether transformers is imported before or after this package.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

AUTO = {
    "transformers.models.auto.configuration_auto": "AutoConfig",
    "transformers.models.auto.modeling_auto": "AutoModel",
}


class _Watch(MetaPathFinder):
    """Lets the classes of AUTO import `registering` when they are used first, once their modules are imported."""

    def __init__(self, registering: str):
        self.registering = registering

    def find_spec(self, name: str, path: Any = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in AUTO else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            _register_at_first_use(getattr(module, AUTO[name]), self.registering)

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def register_when_needed(package: str) -> None:
    """Let the Auto classes import this package's captioner, which registers it, when they are used first."""
    registering = f"{package}.models.captioner"
    for name, auto in AUTO.items():
        if module := sys.modules.get(name):
            _register_at_first_use(getattr(module, auto), registering)
    sys.meta_path.insert(0, _Watch(registering))


def _register_at_first_use(auto: type, registering: str) -> None:
    own = vars(auto).get("from_pretrained")

    def from_pretrained(kind: type, *given: Any, **named: Any) -> Any:
        if own is None:
            del auto.from_pretrained
        else:
            auto.from_pretrained = own
        import_module(registering)
        return kind.from_pretrained(*given, **named)

    auto.from_pretrained = classmethod(from_pretrained)
