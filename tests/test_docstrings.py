"""The examples in the docstrings of everything public run as they stand, offline."""

import ast
import inspect
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^[ \t]*```python\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
# What runs only where an optional package is installed, or a model has been published.
OPTIONAL = {"digits": "sklearn", "draw": "cv2", "keras_hub": "keras_hub", "keras_cv": "keras_cv"}


def docstrings(node, name):
    """Yields the names and docstrings of a module's public classes, functions and methods."""
    if text := ast.get_docstring(node, clean=False):
        yield name, inspect.cleandoc(text)
    for child in ast.iter_child_nodes(node):
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(child, kinds) and not child.name.startswith("_"):
            yield from docstrings(child, f"{name}.{child.name}")


def collect():
    """Finds all examples without importing anything."""
    found = {}
    for path in sorted((ROOT / "mtl_keras").rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        for name, text in docstrings(ast.parse(path.read_text("utf-8")), ".".join(parts)):
            for i, block in enumerate(BLOCK.findall(text)):
                found[f"{name}-{i}" if i else name] = inspect.cleandoc("\n" + block)
    return found


EXAMPLES = collect()


def test_examples_are_found():
    assert {"mtl_keras.training.build.build", "mtl_keras.data.coco.from_coco"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch):
    code = EXAMPLES[name]
    for word, package in OPTIONAL.items():
        if re.search(rf"\b{word}\b", code):
            pytest.importorskip(package, reason=f"{package} is not installed")
    from tensorflow_datasets.core import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path / "tensorflow_datasets"))
    exec(compile(code, f"<example of {name}>", "exec"), {"__name__": "__main__"})
