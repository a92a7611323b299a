"""Rows of layouts with a label file an image: Pascal VOC and YOLO."""

import re

import numpy as np
from bad_rows import BOTH, EMPTY, WHOLE, Row, after, file, replaced
from labelled_sets import HEIGHT, WIDTH
from PIL import Image


def voc(what, spoil, usable=None, kind="", words="", line=None, **more):
    return Row("voc", what, spoil, usable, kind, words, line, **more)


def xml(old, new):
    return replaced("Annotations/b.xml", old, new)


def xml_is(content):
    return file("Annotations/b.xml", content)


def map_is(array, **more):
    def spoil(s):
        (s.folder / "SegmentationClass").mkdir()
        (s.folder / "labelmap.txt").write_text("background\ncell\n")
        Image.fromarray(array).save(s.folder / "SegmentationClass/b.png")

    return spoil


def list_is(name, text):
    return file(f"ImageSets/Main/{name}.txt", text)


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>\n<annotation>&b;</annotation>'
VOC = [
    voc(
        "reversed",
        xml("<xmax>25<", "<xmax>2<"),
        kind="reversed box",
        words="ends before",
        line="<bndbox>",
    ),
    voc(
        "outside",
        xml(
            "<xmin>6</xmin>\n<ymin>7</ymin>\n<xmax>25<",
            "<xmin>70</xmin>\n<ymin>7</ymin>\n<xmax>80<",
        ),
        kind="box without area",
        words="outside",
        line="<object>",
        left=EMPTY,
    ),
    voc("partly outside", xml("<xmin>6<", "<xmin>-3<"), [[0, 6, 25, 16]]),
    voc("one pixel", xml("<xmax>25<", "<xmax>6<"), [[5, 6, 6, 16]]),
    voc("huge", xml("<xmax>25<", "<xmax>1e9<"), [[5, 6, 60, 16]]),
    voc(
        "NaN",
        xml("<xmin>6<", "<xmin>nan<"),
        kind="box of no numbers",
        words="finite",
        line="<xmin>",
    ),
    voc(
        "infinity",
        xml("<xmin>6<", "<xmin>inf<"),
        kind="box of no numbers",
        words="finite",
        line="<xmin>",
    ),
    voc(
        "decimal comma",
        xml("<xmin>6<", "<xmin>6,5<"),
        kind="box of no numbers",
        words="6,5",
        line="<xmin>",
    ),
    voc(
        "three numbers",
        xml("<ymax>16</ymax>", ""),
        kind="box of no numbers",
        words="ymax",
        line="<bndbox>",
    ),
    voc(
        "no box",
        after("Annotations/b.xml", lambda c: re.sub(rb"(?s)<bndbox>.*</bndbox>", b"", c)),
        kind="object without a box",
        words="xmin, ymin",
        line="<object>",
    ),
    voc(
        "no class", xml("cell", " "), kind="object without a class", words="<name>", line="<object>"
    ),
    voc(
        "flag",
        xml("<bndbox>", "<difficult>maybe</difficult><bndbox>"),
        kind="unknown flag",
        words="0 or 1",
        line="<difficult>",
    ),
    voc(
        "cut short",
        after("Annotations/b.xml", lambda c: c[:90]),
        kind="damaged XML",
        words="cut short",
        line=5,
    ),
    voc("of nothing", xml_is(""), kind="damaged XML", words="cut short or no XML", line=1),
    voc(
        "an entity bomb", xml_is(BOMB), kind="document type in XML", words="DOCTYPE.*delete", line=1
    ),
    voc(
        "a file of the computer",
        xml_is(
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'
        ),
        kind="document type in XML",
        words="DOCTYPE",
        line=1,
    ),
    voc("another XML", xml_is("<svg/>"), kind="other XML", words="<annotation>", line=1),
    voc("byte order mark", after("Annotations/b.xml", lambda c: b"\xef\xbb\xbf" + c), [WHOLE]),
    voc(
        "latin-1",
        after("Annotations/b.xml", lambda c: c.replace(b"cell", b"c\xe9ll")),
        kind="damaged XML",
        words="no XML|UTF-8",
        line=4,
    ),
    voc("no object", xml_is("<annotation></annotation>"), []),
    voc("no XML", lambda s: (s.folder / "Annotations/b.xml").unlink(), []),
    voc(
        "another size",
        xml("<width>60<", "<width>61<"),
        kind="image of another size",
        words="60 x 40.*61 x 40",
    ),
    voc(
        "size of no numbers",
        xml("<width>60<", "<width>wide<"),
        kind="image size",
        words="count of pixels",
        line="<size>",
    ),
    voc("size of 0", xml("<width>60<", "<width>0<"), [WHOLE]),
    voc(
        "XML without image",
        file("Annotations/c.xml", "<annotation/>"),
        kind="missing image",
        words="'c'",
        left=BOTH,
    ),
    voc(
        "mask of another size",
        map_is(np.zeros((9, 9), "uint8")),
        kind="mask of another size",
        words="9 x 9.*60 x 40",
    ),
    voc(
        "mask of unknown classes",
        map_is(np.full((HEIGHT, WIDTH), 9, "uint8")),
        kind="unknown class in mask",
        words="index 9",
    ),
    voc(
        "mask of 16 bits",
        map_is(np.zeros((HEIGHT, WIDTH), "uint16")),
        kind="mask without palette",
        words="palette",
    ),
    voc(
        "missing in a list",
        list_is("train", "a\nb\nc\n"),
        kind="missing image",
        words="'c'",
        line=3,
        left=BOTH,
    ),
    voc(
        "in two lists",
        lambda s: [list_is("train", "a\nb\n")(s), list_is("val", "b\n")(s)],
        kind="image in two splits",
        words="train.txt",
        line=1,
        left=BOTH,
    ),
    voc(
        "twice in a list",
        list_is("train", "a\nb\nb\n"),
        kind="image listed twice",
        words="above",
        line=3,
        left=BOTH,
    ),
    voc(
        "list of no text",
        list_is("train", b"a\nb\n\xe9\n"),
        kind="not UTF-8",
        words="UTF-8",
        line=3,
        left=None,
    ),
    voc(
        "lists of nothing",
        lambda s: [list_is("train", "a\nb\n")(s), list_is("val", "\n")(s)],
        [WHOLE],
    ),
    voc(
        "images of one name",
        lambda s: Image.new("RGB", (WIDTH, HEIGHT)).save(s.images / "b.jpg"),
        kind="images of one name",
        words="names of their own",
    ),
]


def yolo(what, text, usable=None, kind="", words="", line=1, **more):
    spoil = text if callable(text) else file("labels/train/b.txt", text)
    return Row("yolo", what, spoil, usable, kind, words, line, **more)


def yaml(text):
    return file("data.yaml", text)


FOUR = "0.25 0.275 0.3333333333 0.25"
YOLO = [
    yolo("no class id of the names", f"3 {FOUR}", kind="unknown class", words="3 is not of 0 to 0"),
    yolo("negative class", f"-1 {FOUR}", kind="unknown class", words="-1"),
    yolo("class 0.5", f"0.5 {FOUR}", kind="unknown class", words="0.5"),
    yolo("class 0.0", f"0.0 {FOUR}", [WHOLE]),
    yolo("a name as class", f"cell {FOUR}", kind="no number", words="'cell'"),
    yolo("pixels", "0 15 11 20 10", kind="not normalised", words=r"\[0, 1\]"),
    yolo("partly outside", "0 0.0 0.275 0.3333333333 0.25", [[0, 6, 10, 16]]),
    yolo("a little beyond 1", "0 0.5 0.5 1.005 1", [[0, 0, WIDTH, HEIGHT]]),
    yolo(
        "outside", "0 1.0 0.5 0.0 0.1", kind="box without area", words="covers nothing", left=EMPTY
    ),
    yolo(
        "no width", "0 0.5 0.5 0 0.1", kind="box without area", words="covers nothing", left=EMPTY
    ),
    yolo("reversed", "0 0.5 0.5 -0.2 0.1", kind="reversed box", words="below 0"),
    yolo("commas", "0,0.25,0.275,0.33,0.25", kind="no number", words="0,0.25"),
    yolo("decimal commas", "0 0,25 0,275 0,33 0,25", kind="no number", words="0,25"),
    yolo("NaN", "0 nan 0.275 0.3 0.25", kind="no number", words="finite"),
    yolo("infinity", "0 inf 0.275 0.3 0.25", kind="no number", words="finite"),
    yolo("three numbers", "0 0.25 0.275 0.3", kind="number of columns", words="a box has 5"),
    yolo("a confidence", f"0 {FOUR} 0.9", kind="confidence in labels", words="confidence"),
    yolo(
        "two points and a half",
        "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4",
        kind="number of columns",
        words="polygon",
    ),
    yolo(
        "a flat polygon",
        "0 0.1 0.1 0.2 0.2 0.3 0.3",
        kind="box without area",
        words="covers nothing",
        left=EMPTY,
    ),
    yolo("second line", f"0 {FOUR}\n0 x", kind="no number", words="'x'", line=2),
    yolo("tabs, blanks, line ends", f"\r\n 0\t{FOUR} \r\n\r\n".replace(" 0.", "  0."), [WHOLE]),
    yolo("byte order mark", f"\ufeff0 {FOUR}", [WHOLE]),
    yolo("powers of ten", "0 2.5e-1 2.75E-1 0.3333333333 .25", [WHOLE]),
    yolo("nothing", "", []),
    yolo("no text", b"\xff\xfe0\x00", kind="not UTF-8", words="UTF-8"),
    yolo(
        "label without image",
        file("labels/train/c.txt", f"0 {FOUR}"),
        kind="missing image",
        words="c",
        line=None,
        left=BOTH,
    ),
    yolo(
        "image outside of splits",
        lambda s: Image.new("RGB", (9, 9)).save(s.folder / "images/c.png"),
        kind="image in no split",
        words="move it",
        line=None,
        left=BOTH,
    ),
    yolo(
        "images of one name",
        lambda s: Image.new("RGB", (9, 9)).save(s.images / "b.jpg"),
        kind="images of one name",
        words="b.jpg, b.png",
        line=None,
    ),
    yolo(
        "a class without a name",
        file("classes.txt", "\ncell\n"),
        kind="names",
        words="empty line",
        line=1,
        left=None,
    ),
    yolo(
        "classes of no text",
        file("classes.txt", b"c\xe9ll\n"),
        kind="not UTF-8",
        words="UTF-8",
        line=1,
        left=None,
    ),
    yolo(
        "classes twice",
        file("labels/classes.txt", "gap\n"),
        kind="names",
        words="other classes",
        line=None,
        left=None,
    ),
    yolo(
        "YAML cut short",
        yaml("train: images/train\nnames: [cell,"),
        kind="damaged YAML",
        words="yaml",
        line=2,
        left=None,
    ),
    yolo(
        "YAML of a list",
        yaml("- names: 1\nnames: x"),
        kind="damaged YAML",
        words="yaml",
        line=2,
        left=None,
    ),
    yolo(
        "other count",
        yaml("train: images/train\nnames: [cell]\nnc: 3"),
        kind="names",
        words="nc is 3",
        line=3,
        left=None,
    ),
    yolo(
        "no such folder",
        yaml("train: images/train\nval: images/val\nnames: [cell]"),
        kind="missing folder",
        words="images/val",
        line=2,
        left=BOTH,
    ),
    yolo("a split of nothing", lambda s: (s.folder / "images/val").mkdir(), [WHOLE]),
    yolo(
        "a list with what is missing",
        lambda s: [
            file("train.txt", "images/train/a.png\nimages/train/b.png\nc.png\n")(s),
            yaml("train: train.txt\nnames: [cell]")(s),
        ],
        kind="missing image",
        words="c.png",
        line=3,
        left=BOTH,
    ),
    yolo(
        "an image in two splits",
        yaml("train: images/train\nval: images/train\nnames: [cell]"),
        kind="image in two splits",
        words="a.png",
        line=None,
        left=BOTH,
    ),
]
