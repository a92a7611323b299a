"""The programs of zoo/, as modules."""

import importlib.util
import pathlib
import sys

ZOO = pathlib.Path(__file__).parents[2] / "zoo"


def program(name):
    """Imports a program, which finds those beside it."""
    sys.path.insert(0, str(ZOO))
    try:
        spec = importlib.util.spec_from_file_location(f"zoo_{name}", ZOO / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ZOO))
    return module
