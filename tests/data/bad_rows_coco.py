"""Rows of COCO and COCO panoptic."""

import numpy as np
from bad_rows import BOTH, EMPTY, NOT_FOUR, WHOLE, A, Row, after, file, replaced
from labelled_sets import HEIGHT, WIDTH
from PIL import Image


def annotation(**more):
    return lambda s: s.content["annotations"][1].update(more)


def entry(**more):
    return lambda s: s.content["images"][1].update(more)


def again(key, **more):
    return lambda s: s.content[key].append({**s.content[key][1], **more})


def coco(what, spoil, usable=None, kind="", words="", line='"id": 2, "image_id"', **more):
    return Row("coco", what, spoil, usable, kind, words, line, **more)


def no_masks(one):
    assert not one["labelled"]["instances"]


def all_ignored_in_box(one):
    assert set(np.unique(one["mask"])) == {0, 255}


BOX_PROBLEM, SEGMENTATION = "bad annotation", "bad segmentation"
RLE = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}

COCO = [
    coco("reversed", annotation(bbox=[25, 16, -20, -10]), kind="reversed box", words="negative"),
    coco(
        "outside", annotation(bbox=[70, 0, 5, 5]), kind="box outside", words="60 x 40", left=EMPTY
    ),
    coco("partly outside", annotation(bbox=[-5, -6, 20, 20]), [[0, 0, 15, 14]]),
    coco("huge", annotation(bbox=[-1e6, -1e6, 3e6, 3e6]), [[0, 0, WIDTH, HEIGHT]]),
    coco(
        "beyond all numbers", annotation(bbox=[0, 0, 10**400, 5]), kind=BOX_PROBLEM, words=NOT_FOUR
    ),
    coco("NaN", annotation(bbox=[float("nan"), 1, 2, 3]), kind=BOX_PROBLEM, words=NOT_FOUR),
    coco("infinity", annotation(bbox=[1, 1, float("inf"), 3]), kind=BOX_PROBLEM, words=NOT_FOUR),
    coco(
        "no width",
        annotation(bbox=[5, 5, 0, 5]),
        kind="box without area",
        words="no area",
        left=EMPTY,
    ),
    coco("three numbers", annotation(bbox=[1, 2, 3]), kind=BOX_PROBLEM, words=NOT_FOUR),
    coco("five numbers", annotation(bbox=[1, 2, 3, 4, 5]), kind=BOX_PROBLEM, words=NOT_FOUR),
    coco("a text", annotation(bbox="5 6 20 10"), kind=BOX_PROBLEM, words=NOT_FOUR),
    coco("texts of numbers", annotation(bbox=["5", "6", "20", "10"]), [WHOLE]),
    coco(
        "texts of no numbers",
        annotation(bbox=["a", "6", "20", "10"]),
        kind=BOX_PROBLEM,
        words=NOT_FOUR,
    ),
    coco("a dict", annotation(bbox={"x": 1}), kind=BOX_PROBLEM, words=NOT_FOUR),
    coco("no box", annotation(bbox=None), [WHOLE]),
    coco(
        "no box and no mask",
        annotation(bbox=None, segmentation=None),
        kind=BOX_PROBLEM,
        words="neither",
    ),
    coco("no mask", annotation(segmentation=[]), [WHOLE], check=no_masks),
    coco(
        "unknown class", annotation(category_id=77), kind="unknown category id", words=r"77.*\[7\]"
    ),
    coco("negative class", annotation(category_id=-1), kind="unknown category id", words="-1"),
    coco("class 7.0", annotation(category_id=7.0), [WHOLE]),
    coco("class 7.5", annotation(category_id=7.5), kind="unknown category id", words="7.5"),
    coco(
        "class as a list", annotation(category_id=[7]), kind="unknown category id", words=r"\[7\]"
    ),
    coco("no class", annotation(category_id=None), kind=BOX_PROBLEM, words="lacks category_id"),
    coco("class without a name", lambda s: s.content["categories"][0].update(name=" "), [WHOLE]),
    coco(
        "class id as a text",
        lambda s: s.content["categories"][0].update(id="x"),
        kind="bad category",
        words="integer",
        line='"name": "cell"',
        left=None,
    ),
    coco(
        "class id twice",
        lambda s: s.content["categories"].append({"id": 7, "name": "gap"}),
        kind="repeated category id",
        words="7 twice",
        line='"gap"',
        left=None,
    ),
    coco("two points", annotation(segmentation=[[1, 2, 3, 4]]), [WHOLE], check=no_masks),
    coco(
        "odd polygon",
        annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        kind=SEGMENTATION,
        words="pairs",
    ),
    coco(
        "flat polygon", annotation(segmentation=[1, 2, 3, 4, 5, 6]), kind=SEGMENTATION, words="list"
    ),
    coco(
        "polygon with NaN",
        annotation(segmentation=[[1, 2, 3, 4, 5, float("nan")]]),
        kind=SEGMENTATION,
        words="finite",
    ),
    coco("polygon of texts", annotation(segmentation=["abcdef"]), kind=SEGMENTATION, words="pairs"),
    coco(
        "polygon outside",
        annotation(segmentation=[[70, 50, 80, 50, 80, 60]]),
        [WHOLE],
        check=all_ignored_in_box,
    ),
    coco(
        "path of a mask",
        annotation(segmentation="b.png"),
        kind=SEGMENTATION,
        words="neither a list",
    ),
    coco(
        "RLE that overflows",
        annotation(segmentation={**RLE, "counts": [100, HEIGHT * WIDTH]}),
        kind=SEGMENTATION,
        words="add up to 2500.*2400",
    ),
    coco(
        "RLE of another size",
        annotation(segmentation={"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}),
        kind=SEGMENTATION,
        words=r"\[60, 40\].*\[40, 60\]",
    ),
    coco(
        "RLE cut short",
        annotation(segmentation={**RLE, "counts": "PPP"}),
        kind=SEGMENTATION,
        words="cut short",
    ),
    coco(
        "negative run",
        annotation(segmentation={**RLE, "counts": [2500, -100]}),
        kind=SEGMENTATION,
        words="below 0",
    ),
    coco("RLE without pixels", annotation(segmentation=RLE), [WHOLE], check=all_ignored_in_box),
    coco("crowd 2", annotation(iscrowd=2), kind=BOX_PROBLEM, words="iscrowd"),
    coco(
        "an unknown image", annotation(image_id=99), kind="unknown image id", words="99", left=EMPTY
    ),
    coco(
        "no image",
        annotation(image_id=None),
        kind=BOX_PROBLEM,
        words="lacks image_id",
        line='"id": 2, "image_id"',
        left=EMPTY,
    ),
    coco(
        "written twice",
        again("annotations"),
        kind="repeated annotation",
        words="twice",
        left=BOTH,
        line=None,
    ),
    coco(
        "id of two annotations",
        again("annotations", bbox=[30, 20, 5, 5]),
        kind="repeated annotation id",
        words=r"annotations\[1\]",
        line="[30, 20, 5, 5]",
    ),
    coco(
        "image id twice",
        again("images", file_name="c.png"),
        kind="repeated image id",
        words="2 twice",
        line='"b.png"',
    ),
    coco(
        "file twice",
        again("images", id=3),
        kind="repeated file name",
        words=r"b\.png.*once",
        line='"b.png"',
    ),
    coco(
        "image without a name",
        entry(file_name=""),
        kind="bad image entry",
        words="file_name",
        line='"id": 2, "file_name"',
    ),
    coco(
        "image id as a text",
        entry(id="x"),
        kind="bad image entry",
        words="integer",
        line='"b.png"',
        left=A,
    ),
    coco("image of no size", entry(width=None), [WHOLE]),
    coco("image of size 0", entry(width=0, height=0), [WHOLE]),
    coco(
        "image of another size",
        entry(width=61),
        kind="image of another size",
        words="60 x 40.*61 x 40",
        line=None,
    ),
    coco(
        "JSON cut short",
        after("train.json", lambda c: c[: c.rindex(b"image_id")]),
        kind="unreadable JSON",
        words="JSON",
        line=11,
        left=None,
    ),
    coco(
        "JSON of nothing",
        file("train.json", ""),
        kind="unreadable JSON",
        words="not valid JSON",
        line=1,
        left=None,
    ),
    coco(
        "JSON with a comma too many",
        replaced("train.json", "]\n}", "],\n}"),
        kind="unreadable JSON",
        words="JSON",
        line=None,
        left=None,
    ),
    coco(
        "a list",
        file("train.json", "[]"),
        kind="not COCO",
        words="'images', 'annotations', 'categories'",
        line=None,
        left=None,
    ),
    coco(
        "no lists",
        file("train.json", '{"images": {}}'),
        kind="not COCO",
        words="lists",
        line=None,
        left=None,
    ),
    coco("byte order mark", after("train.json", lambda c: b"\xef\xbb\xbf" + c), [WHOLE]),
    coco("UTF-16", after("train.json", lambda c: c.decode().encode("utf-16")), [WHOLE]),
    coco(
        "latin-1",
        after("train.json", lambda c: c.replace(b"cell", b"c\xe9ll")),
        kind="unreadable JSON",
        words="JSON",
        line=None,
        left=None,
    ),
    coco(
        "an empty split",
        file(
            "val.json",
            '{"images": [], "annotations": [], "categories": [{"id": 7, "name": "cell"}]}',
        ),
        kind="no images",
        words=r"val\.json.*lists no images",
        line=None,
        left=BOTH,
    ),
    coco(
        "splits that disagree",
        file(
            "val.json",
            '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], '
            '"categories": [{"id": 7, "name": "gap"}]}',
        ),
        kind="contradicting categories",
        words="'cell'.*'gap'",
        line=1,
        left=None,
    ),
]


def segment(**more):
    return lambda s: s.content["annotations"][1]["segments_info"][0].update(more)


def ids(change):
    def spoil(s):
        path = s.folder / "panoptic_train/b.png"
        change(path)

    return spoil


def panoptic(what, spoil, usable=None, kind="", words="", line='"b.png", "segments_info"', **more):
    return Row("coco_panoptic", what, spoil, usable, kind, words, line, **more)


def stranger(path):
    ids = np.array(Image.open(path))
    ids[0, 0, 1] = 2
    Image.fromarray(ids).save(path)


def blank(path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)


PANOPTIC = [
    panoptic("PNG missing", ids(lambda p: p.unlink()), kind="missing mask", words=r"b\.png"),
    panoptic(
        "PNG cut short",
        ids(lambda p: p.write_bytes(p.read_bytes()[:60])),
        kind="unusable label",
        words="damaged",
        line=None,
    ),
    panoptic(
        "PNG of nothing", ids(lambda p: p.write_bytes(b"")), kind="damaged mask", words="0 bytes"
    ),
    panoptic(
        "PNG of grey",
        ids(lambda p: Image.open(p).convert("L").save(p)),
        kind="bad mask",
        words="RGB",
    ),
    panoptic(
        "PNG of another size",
        ids(lambda p: Image.new("RGB", (9, 9)).save(p)),
        kind="mask of another size",
        words="9 x 9.*60 x 40",
    ),
    panoptic(
        "no such pixels",
        ids(blank),
        kind="unusable label",
        words="no pixel of segments.*256",
        line=None,
    ),
    panoptic(
        "id of no segment",
        ids(stranger),
        kind="unusable label",
        words="ids that no segment has.*512",
        line=None,
    ),
    panoptic("segment id below 1", segment(id=-3), kind="bad segment", words="from 1 to"),
    panoptic("no segment id", segment(id=None), kind="bad segment", words="integer"),
    panoptic(
        "unknown class", segment(category_id=9), kind="unknown category id", words=r"9.*\[7\]"
    ),
    panoptic("box of three", segment(bbox=[1, 2, 3]), kind="bad segment", words=NOT_FOUR),
    panoptic("box reversed", segment(bbox=[9, 9, -3, 3]), kind="reversed box", words="negative"),
    panoptic(
        "box outside", segment(bbox=[90, 9, 3, 3]), kind="box outside", words="60 x 40", left=BOTH
    ),
    panoptic(
        "two annotations",
        again("annotations"),
        kind="repeated annotation",
        words="second",
        line=None,
    ),
    panoptic(
        "segments as a dict",
        lambda s: s.content["annotations"][1].update(segments_info={}),
        kind="bad annotation",
        words="segments_info",
    ),
    panoptic("no annotation", lambda s: s.content["annotations"].pop(), []),
    panoptic(
        "file twice",
        again("images", id=3),
        kind="repeated file name",
        words="once",
        line='"file_name": "b.png", "width"',
    ),
    panoptic(
        "class of no kind",
        lambda s: s.content["categories"][0].pop("isthing"),
        kind="bad category",
        words="isthing",
        line='"name": "cell"',
        left=None,
    ),
]
