"""The page stands alone, is well formed, and takes any name."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import mtl_keras as mtl
from mtl_keras.data.checking import samples, terminal

EVIL = '<script>alert(1)</script> & "quoted" [red]'
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags of a page; fails if they are not closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory, coco_folder_class):
    folder = tmp_path_factory.mktemp("page") / "a set"
    for split in ("train", "val"):
        coco = coco_folder_class(folder)
        coco.content["categories"][0]["name"] = EVIL
        for i in range(6):
            key = coco.image(f"{split} {i} & <b>.png", seed=i + 100 * (split == "val"))
            coco.rectangle(key, 5, 5, 20, 10)
            coco.rectangle(key, 30, 5, 9, 9)
            coco.object(key, [30, 5, 9, 9])
        if split == "val":
            coco.rectangle(coco.image("copy.png", seed=3), 5, 5, 9, 9, category_id=8)
            coco.rectangle(coco.image("gone.png", seed=500), 5, 5, 9, 9)
            (coco.images / "gone.png").unlink()
        coco.write(f"{split}.json")
    return mtl.data.check(folder)


def test_a_page_stands_alone(report, tmp_path):
    path = report.save_html(tmp_path / "report.html", samples=4)
    text = path.read_text("utf-8")
    page = Page(text)
    links = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "srcset")]
    assert links and all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert not re.search(r"https?://|@import|url\(|<script", text)
    for link in links:
        picture = Image.open(io.BytesIO(base64.b64decode(link.split(",", 1)[1])))
        picture.load()
        assert max(picture.size) in (
            samples.SAMPLE,
            samples.CLOSE,
            60,
        )  # the small ones are not enlarged
    figures = [a for tag, a in page.tags if tag == "figure"]
    assert len(figures) == 4 + 12 + 2  # samples, warnings from near, and two of one picture
    shown = " ".join(page.text)
    for part in (
        EVIL,
        "val 1 & <b>.png",
        "missing image",
        "repeated box",
        "duplicate across splits",
    ):
        assert part in shown
    assert {tag for tag, _ in page.tags} >= {"svg", "rect", "table", "details"}


def test_bars_are_as_high_as_shares(report, tmp_path):
    page = Page(report.save_html(tmp_path / "r.html", samples=0).read_text("utf-8"))
    bars = [a for tag, a in page.tags if tag == "rect"]
    titles = re.findall(r"\((\d+\.\d)%\)", " ".join(page.text))
    assert len(bars) == len(titles) > 4
    # The scale of a chart is that of its largest share, so within one split they are proportional.
    heights = np.array([float(bar["height"]) for bar in bars])
    shares = np.array([float(title) for title in titles])
    assert np.all(heights[shares == 0] == 0) and heights.max() == pytest.approx(104)
    first = slice(0, 3)
    np.testing.assert_allclose(
        heights[first] * shares[first].max(), shares[first] * heights[first].max(), rtol=0.02
    )


def test_a_page_of_nothing(coco_folder, tmp_path):
    coco_folder.rectangle(coco_folder.image("a.png"), 5, 5, 9, 9)
    path = coco_folder.write()
    path.write_text("{")
    report = mtl.data.check(coco_folder.folder)
    page = Page(report.save_html(tmp_path / "r.html").read_text("utf-8"))
    assert "unreadable JSON" in " ".join(page.text)
    path.write_text("{")
    (coco_folder.images / "a.png").write_bytes(b"x")
    coco_folder.write()
    report = mtl.data.check(coco_folder.folder)
    page = Page(report.save_html(tmp_path / "r.html").read_text("utf-8"))
    assert "no image of the set can be used" in " ".join(page.text)


def test_samples_hold_every_class(tmp_path, coco_folder_class):
    coco = coco_folder_class(tmp_path / "set")
    for i in range(30):
        coco.rectangle(coco.image(f"{i}.png", seed=i), 5, 5, 20, 10)
    coco.rectangle(17, 30, 5, 9, 9, category_id=8)
    coco.write()
    seen = mtl.data.check(tmp_path / "set").seen
    chosen = samples.choose(seen, 3)
    assert len(chosen) == 3 and "16.png" in [one.record.filename for one in chosen]
    assert chosen == samples.choose(seen, 3)
    assert len(samples.choose(seen, 24)) == 24 and len(samples.choose(seen, 99)) == 30


def test_labels_are_drawn_where_they_are():
    image = np.full((40, 60, 3), 100, "uint8")
    mask = np.zeros((40, 60), "uint8")
    mask[10:20, 10:30], mask[30:, :] = 2, 255
    picture = np.asarray(mtl.draw.draw_labels(image, [[5, 5, 35, 25]], [0], mask, longer_side=240))
    assert picture.shape == (160, 240, 3)
    np.testing.assert_array_equal(picture[:16, :16], 100)
    inside, line = picture[60, 80], picture[20, 80]
    colours = [np.array(mtl.draw.class_colour(i)) for i in range(2)]
    np.testing.assert_allclose(inside, (100 + colours[1]) / 2, atol=2)
    hatched = (picture[120:] == mtl.draw.HATCH).all(-1)
    assert 0.2 < hatched.mean() < 0.3 and (picture[120:][~hatched] == 100).all()
    np.testing.assert_allclose(line, colours[0], atol=2)
    with pytest.raises(ValueError, match="`mask`"):
        mtl.draw.draw_labels(image, mask=mask[:20])


def test_the_terminal_shows_all_in_80_columns(report):
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    terminal.show(report, console, limit=3)
    text = console.file.getvalue()
    for part in ("val.json:", "missing image (1)", "repeated box (12)", "… and 9 more", EVIL[:8]):
        assert part in text
    lines = text.splitlines()
    assert lines[-1].startswith("2 problems and 12 warnings in 13 images; 1 image can't be used")
    where = next(i for i, line in enumerate(lines) if "Warnings" in line)
    assert max(map(len, lines[1:where])) <= 80
    console = Console(width=80, file=io.StringIO())
    terminal.show(report, console, limit=0)
    assert "more" not in console.file.getvalue().split("Warnings")[1]
