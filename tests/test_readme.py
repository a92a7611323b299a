"""The pages say what the cards say, their links lead somewhere, and their examples run."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_tables_are_up_to_date():
    result = subprocess.run(
        [sys.executable, "zoo/tables.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-500:]


BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLES = {
    f"{page.stem}-{i}": block
    for page in sorted(ROOT.glob("docs/*.md"))
    for i, block in enumerate(BLOCK.findall(page.read_text("utf-8")))
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[name], f"<example {name}>", "exec"), {"__name__": "__main__"})


def test_links_lead_somewhere():
    cards = "published/*/*.md"
    places = ("*.md", "docs/*.md", "zoo/*.md", f"mtl_keras/zoo/{cards}", f"zoo/package/*/{cards}")
    pages = {page for place in places for page in ROOT.glob(place)}
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
