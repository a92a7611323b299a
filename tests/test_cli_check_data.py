"""`mtl-keras check-data`: exit codes, files, and what is said."""

import json

import pytest
from test_cli import coco, data_dir, run  # noqa: F401


@pytest.fixture
def folder(coco):  # noqa: F811
    return coco("train", 6)


def broken(folder):
    file = folder / "images/train2.png"
    file.write_bytes(file.read_bytes()[:500])
    return file


def test_a_good_folder(folder):
    result = run("check-data", folder)
    assert result.exit_code == 0, result.output
    assert "No problems in 6 images" in result.output and "low" in result.output


def test_problems_make_the_exit_code_1(folder, tmp_path):
    broken(folder)
    page, listed = tmp_path / "report.html", tmp_path / "report.json"
    arguments = ["check-data", folder, "--html", page, "--json", listed, "--samples", 2]
    result = run(*arguments)
    assert result.exit_code == 1 and "images/train2.png: the image" in result.output
    assert "1 problem in 5 images" in result.output and str(page) in result.output.replace("\n", "")
    content = json.loads(listed.read_text())
    assert content["problems"][0]["image"] == "train2.png"
    assert content["splits"]["train"]["images"] == 5
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>") and text.count("data:image/jpeg") == 2
    assert run(*arguments, "--no-fail").exit_code == 0


def test_warnings_fail_if_strict(folder):
    labels = json.loads((folder / "train.json").read_text())
    labels["annotations"].append({**labels["annotations"][0], "id": 999})
    (folder / "train.json").write_text(json.dumps(labels, indent=1))
    result = run("check-data", folder)
    assert result.exit_code == 0 and "repeated box" in result.output
    assert run("check-data", folder, "--strict").exit_code == 1
    assert run("check-data", folder, "--strict", "--no-fail").exit_code == 0


def test_a_picture_in_two_splits_is_a_problem(coco):  # noqa: F811
    coco("train", 3)
    folder = coco("val", 2)
    result = run("check-data", folder)
    assert result.exit_code == 1 and "duplicate across splits (2)" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no folder"),
        (["."], "none of the layouts"),
        ([".", "--layout", "imagenet"], "`layout`"),
        ([".", "--html", "nowhere/report.html"], "nowhere"),
        ([".", "--samples", "-1"], "--samples"),
    ],
)
def test_what_can_not_run_is_2(arguments, said, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("nothing")
    monkeypatch.chdir(tmp_path)
    result = run("check-data", *arguments)
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output


def test_help_tells_the_exit_codes():
    result = run("check-data", "--help")
    text = " ".join(result.output.split())
    assert result.exit_code == 0
    for part in ("Exit code: 0", "1 problems found", "2 the check could not run"):
        assert part in text
