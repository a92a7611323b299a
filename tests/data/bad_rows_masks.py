"""Rows of masks and of columns."""

import numpy as np
from bad_rows import BOTH, A, Row, file
from labelled_sets import HEIGHT, WIDTH
from PIL import Image


def mask(what, spoil, usable=None, kind="", words="", line=None, **more):
    return Row("mask_folders", what, spoil, usable, kind, words, line, **more)


def mask_is(array, **more):
    return lambda s: Image.fromarray(array).save(s.folder / "masks/b.png", **more)


def grey(value, x=4):
    one = np.zeros((HEIGHT, WIDTH), "uint8")
    one[3, x] = value
    return one


def mask_as(suffix, **more):
    def spoil(s):
        path = s.folder / "masks/b.png"
        Image.open(path).convert("RGB" if suffix == "jpg" else "L").save(
            path.with_suffix(f".{suffix}"), **more
        )
        path.unlink()

    return spoil


def ignored_at_4_3(one):
    assert one["mask"][3, 4] == 255 and one["mask"].sum() == 256


MASKS = [
    mask(
        "of another size",
        mask_is(np.zeros((9, 9), "uint8")),
        kind="mask of another size",
        words="9 x 9.*60 x 40",
    ),
    mask(
        "of an unknown class",
        mask_is(grey(7)),
        kind="unknown class",
        words="7, the first at x 4, y 3",
    ),
    mask(
        "of smoothed edges", mask_is(grey(129)), kind="grey values between", words="129.*x 4, y 3"
    ),
    mask("with 255", mask_is(np.maximum(grey(255), grey(1, 9))), [], check=ignored_at_4_3),
    mask(
        "of nothing but background",
        mask_is(grey(0)),
        [],
        check=lambda one: np.testing.assert_array_equal(one["mask"], 0),
    ),
    mask(
        "cut short",
        lambda s: (s.folder / "masks/b.png").write_bytes(
            (s.folder / "masks/b.png").read_bytes()[:60]
        ),
        kind="unreadable mask",
        words="damaged",
    ),
    mask(
        "of no bytes",
        lambda s: (s.folder / "masks/b.png").write_bytes(b""),
        kind="unreadable mask",
        words="0 bytes",
    ),
    mask(
        "that is a text",
        lambda s: (s.folder / "masks/b.png").write_text("mask"),
        kind="unreadable mask",
        words="not an image",
    ),
    mask("as JPEG", mask_as("jpg", quality=50), kind="lossy mask", words="PNG"),
    mask("as BMP", mask_as("bmp"), []),
    mask(
        "of floats",
        lambda s: [
            Image.fromarray(np.zeros((HEIGHT, WIDTH), "float32")).save(s.folder / "masks/b.tif"),
            (s.folder / "masks/b.png").unlink(),
        ],
        kind="unreadable mask",
        words="8 or 16",
    ),
    mask(
        "in colours",
        lambda s: [
            mask_is(np.dstack([grey(9), grey(0), grey(0)]))(s),
            s.add("c.png"),
        ],
        kind="another kind of mask",
        words="grey values",
        left={"a.png": 1, "c.png": 1},
    ),
    mask(
        "two",
        lambda s: Image.fromarray(grey(1)).save(s.folder / "masks/b_mask.png"),
        kind="several masks",
        words="keep one",
    ),
    mask(
        "of no image",
        lambda s: Image.fromarray(grey(1)).save(s.folder / "masks/c.png"),
        kind="mask without image",
        words="'c'",
        left=BOTH,
    ),
    mask(
        "missing",
        lambda s: (s.folder / "masks/b.png").unlink(),
        [],
        check=lambda one: np.testing.assert_array_equal(one["mask"], 255),
    ),
    mask(
        "shared by two",
        lambda s: Image.new("RGB", (WIDTH, HEIGHT)).save(s.images / "b.jpg"),
        kind="images of one name",
        words="names of their own",
    ),
    mask(
        "class list with a name twice",
        file("classes.txt", "background\ncell\ncell\n"),
        kind="repeated class",
        words="line 2",
        line=3,
        left=None,
    ),
    mask(
        "class list of nothing",
        file("classes.txt", "\n"),
        kind="empty list of names",
        words="class a line",
        left=None,
    ),
    mask(
        "class list of no text",
        file("classes.txt", b"background\nc\xe9ll\n"),
        kind="not UTF-8",
        words="UTF-8",
        line=2,
        left=None,
    ),
]


def table(what, spoil, usable=None, kind="", words="", line=None, **more):
    spoil = spoil if callable(spoil) else file("labels.csv", spoil)
    return Row(
        "columns", what, spoil, usable, kind, words, line, left=more.pop("left", BOTH), **more
    )


def kind_is(value):
    def check(one):
        np.testing.assert_equal(float(one["values"]["kind"]), value)

    return check


COLUMNS = [
    table(
        "ragged", "filename,kind\na.png,x\nb.png,y,z\n", kind="ragged row", words="3 cells", line=3
    ),
    table(
        "unknown file",
        "filename,kind\na.png,x\nb.png,y\nc.png,y\n",
        kind="missing image",
        words="c.png",
        line=4,
    ),
    table(
        "file twice",
        "filename,kind\na.png,x\nb.png,y\nb.png,x\n",
        kind="duplicate row",
        words="line 3",
        line=4,
    ),
    table(
        "no header",
        "a.png,x\nb.png,y\n",
        kind="no header",
        words="name the columns",
        line=1,
        left=None,
    ),
    table("of nothing", "", kind="empty label file", words="line of names", left=None),
    table(
        "of a header",
        "filename,kind\n",
        kind="empty label file",
        words="no rows",
        line=1,
        left=None,
    ),
    table(
        "decimal commas",
        "filename;kind\na.png;1,5\nb.png;2,5\n",
        kind="decimal comma",
        words="1.5",
        line=2,
        left=None,
    ),
    table(
        "no text",
        b"filename,kind\na.png,x\nb.png,\xe9\n",
        kind="not UTF-8",
        words="UTF-8",
        line=3,
        left=None,
    ),
    table(
        "UTF-16",
        "filename,kind\na.png,x\n".encode("utf-16"),
        kind="not UTF-8",
        words="UTF-8",
        line=1,
        left=None,
    ),
    table(
        "open quote",
        'filename,kind\na.png,x\nb.png,"y\n',
        kind="unreadable row",
        words="quote",
        line=3,
        left=None,
    ),
    table(
        "NaN",
        "filename,kind\na.png,0.5\nb.png,nan\n",
        kind="not a finite number",
        words="leave the cell empty",
        line=3,
    ),
    table(
        "infinity",
        "filename,kind\na.png,0.5\nb.png,inf\n",
        kind="not a finite number",
        words="empty",
        line=3,
    ),
    table(
        "text among numbers",
        "filename,kind\na.png,0.5\nb.png,1e999\n",
        kind="not a finite number",
        words="too large",
        line=3,
    ),
    table(
        "column twice",
        "filename,kind,kind\na.png,x,x\nb.png,y,y\n",
        kind="repeated column",
        words="name of its own",
        line=1,
        left=None,
    ),
    table(
        "column without a name",
        "filename,,kind\na.png,x,x\nb.png,y,y\n",
        kind="unnamed column",
        words="name of its own",
        line=1,
        left=None,
    ),
    table(
        "unknown split",
        "filename,kind,split\na.png,x,train\nb.png,y,trian\n",
        kind="unknown split",
        words="'trian'",
        line=3,
        left=A,
    ),
    table("empty cell", "filename,kind\na.png,x\nb.png,\n", [], check=kind_is(np.nan)),
    table("no row", "filename,kind\na.png,x\n", [], check=kind_is(np.nan)),
    table(
        "byte order mark, semicolons, blanks",
        "\ufefffilename; kind\r\na.png; x\r\nb.png ;y\r\n",
        [],
        check=kind_is(1),
    ),
    table("tabs", "filename\tkind\na.png\tx\nb.png\ty\n", [], check=kind_is(1)),
    table(
        "paths of another computer",
        "filename,kind\nC:\\my\\images\\a.png,x\nC:\\my\\images\\b.png,y\n",
        [],
        check=kind_is(1),
    ),
]
