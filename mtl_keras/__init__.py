"""Multi-task learning for Keras 3: one network, several vision tasks.

Rooms are imported when they are first touched, so that `import mtl_keras` costs little more
than `import keras`.
"""

from importlib import import_module

__version__ = "0.1.0"

_ROOMS = (
    "balancing",
    "cli",
    "data",
    "draw",
    "export",
    "metrics",
    "sharing",
    "tasks",
    "training",
    "trunks",
    "zoo",
)
_NAMES = {
    "build": "training",
    "convert": "training",
    "finalize": "training",
    "load_model": "training",
    "MultiTaskModel": "training",
    "NonFiniteLossError": "training",
    "sharing_report": "sharing",
}
__all__ = ["__version__", "adapters", *_ROOMS, *_NAMES]


def __getattr__(name: str):
    if name == "adapters":
        return import_module(f"{__name__}.training.adapters")
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
