"""Makes transformers' Auto classes know our models after `import helpers`, which imports neither them nor PyTorch.

Our classes register themselves when their module is imported. That is done as soon as the Auto classes are imported.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

AUTO = ("transformers.models.auto.configuration_auto", "transformers.models.auto.modeling_auto")


class _Watch(MetaPathFinder):
    """Imports `registering` once the modules of AUTO are complete."""

    def __init__(self, registering: str, ours: str):
        """registering: a module that registers classes. ours: a module that is imported before it, if we are first."""
        self.registering, self.ours, self.unfinished = registering, ours, set[str]()

    def find_spec(self, name: str, path: Any = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in AUTO else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            self.unfinished.add(name)
            execute(module)
            self.unfinished.discard(name)
            if not self.unfinished and self.ours not in sys.modules:
                import_module(self.registering)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_when_needed(package: str) -> None:
    """Register the captioner of this package now if the Auto classes are there, else when they are imported."""
    registering = f"{package}.models.captioner"
    if all(name in sys.modules for name in AUTO):
        import_module(registering)
    else:
        sys.meta_path.insert(0, _Watch(registering, f"{package}.encoders"))
