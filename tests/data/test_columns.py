import unicodedata

import numpy as np
import pytest
from PIL import Image

from mtl_keras.data.columns import attach, read, recognise
from mtl_keras.data.records import BadLabels, Object, Problem, Record, Source


def folder_of(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 6, 3), "uint8")).save(root / name)
    return root


def write(root, text, name="labels.csv"):
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    (root / name).write_bytes(content)
    return root / name


def source_of(root, names=("a.png", "b.png", "c.png"), split="train"):
    records = [
        Record(root / name, name, i, objects=[Object(0)], where="x.json")
        for i, name in enumerate(names)
    ]
    return Source("set", "coco", ["cell"], {split: records})


def values_of(source, split="train"):
    return {r.filename: r.values for r in source.splits[split]}


def found_in(source):
    return [(p.line, p.kind) for p in source.problems]


# === Attaching ===


def test_attach_adds_columns_and_leaves_the_source_as_it_is(tmp_path):
    source = source_of(tmp_path)
    source.problems = [Problem("x", 1, "old", "old")]
    file = write(tmp_path, "file,kind,score\na.png,x,0.5\nc.png,,1\n")
    new = attach(source, file)
    assert new.columns == {"kind": ["x"], "score": None}
    assert values_of(new) == {
        "a.png": {"kind": 0, "score": 0.5},
        "b.png": {},
        "c.png": {"score": 1},
    }
    assert isinstance(values_of(new)["c.png"]["score"], float)
    assert new.files == [file] and new.problems == source.problems and new.layout == "coco"
    assert [r.objects for r in new.splits["train"]] == [r.objects for r in source.splits["train"]]
    assert [r.image_id for r in new.splits["train"]] == [0, 1, 2]
    assert not source.columns and not source.files and not source.splits["train"][0].values
    again = attach(new, write(tmp_path, "image;Größe\na;1\nb;2\n", "more.csv"))
    assert again.columns == {"kind": ["x"], "score": None, "Größe": ["1", "2"]}
    assert values_of(again)["a.png"] == {"kind": 0, "score": 0.5, "Größe": 0}
    with pytest.raises(ValueError, match="columns \\['kind', 'score'\\] already"):
        attach(new, file)


TEXTS = {
    "commas": "file,n,t\na.png,1.5,x\nb.png,2.5,y z\n",
    "semicolons": "file;n;t\na.png;1.5;x\nb.png;2.5;y z\n",
    "tabs": "file\tn\tt\na.png\t1.5\tx\nb.png\t2.5\ty z\n",
    "bom, crlf and spaces": "\ufefffile, n ,t\r\na.png, 1.5 ,x\r\n\r\nb.png,2.5,y z \r\n",
    "old mac": "file,n,t\ra.png,1.5,x\rb.png,2.5,y z\r",
    "quotes": 'file,n,t\n"a.png","1.5","x"\nb.png,2.5,"y z"\n',
    "index of pandas": ",file,n,t\n0,a.png,1.5,x\n1,b.png,2.5,y z\n",
    "ends in delimiters": "file;n;t;;\na.png;1.5;x;;\nb.png;2.5;y z;;\n",
    "commas in cells": "file;n;t;a,b,c\na.png;1.5;x;\nb.png;2.5;y z;\n",
    "another order": "t,n,path\nx,1.5,a.png\ny z,2.5,b.png\n",
    "a header of its own": "n,t,photograph\n1.5,x,a.png\n2.5,y z,b.png\n",
    "id that names no file": "id,n,t,pic\n7,1.5,x,a.png\n8,2.5,y z,b.png\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_forms_of_a_table(tmp_path, name):
    kinds = {"id": "skip"} if name.startswith("id") else None
    new = attach(source_of(tmp_path), write(tmp_path, TEXTS[name]), kinds)
    assert new.columns == {"n": None, "t": ["x", "y z"]}
    assert list(values_of(new).values()) == [{"n": 1.5, "t": 0}, {"n": 2.5, "t": 1}, {}]


def test_tsv_with_commas(tmp_path):
    new = attach(source_of(tmp_path), write(tmp_path, "file\ta,b\na.png\tx,y\n", "t.tsv"))
    assert new.columns == {"a,b": ["x,y"]}


# === Which image ===


@pytest.mark.parametrize(
    "value, expected",
    [
        ("sub/a b.png", 0),
        ("a b.png", 0),
        ("./sub/a b.png", 0),
        ("sub\\a b.png", 0),
        ("a b", 0),
        ("sub/a b", 0),
        ("a b.jpg", 0),
        ("/data/images/sub/a b.png", 0),
        ("images/v1.5", 1),
        ("v1.5", 1),
        ("other/a b.png", None),
        ("x/y", None),
        ("v1", None),
        ("sub/", None),
        ("é.png", 2),
        (unicodedata.normalize("NFD", "é.png"), 2),
        (unicodedata.normalize("NFD", "é"), 2),
    ],
)
def test_names_of_images(tmp_path, value, expected):
    source = source_of(tmp_path / "images", ("sub/a b.png", "v1.5.png", "é.png", "z.png"))
    text = f'file,label\nz.png,x\n"{value}",y\n'
    new = attach(source, write(tmp_path, text), on_bad="quarantine")
    got = [i for i, r in enumerate(new.splits["train"]) if r.values.get("label") == 1]
    assert got == ([] if expected is None else [expected])
    assert found_in(new) == ([(3, "missing image")] if expected is None else [])


def test_one_name_in_two_folders_or_splits(tmp_path):
    source = source_of(tmp_path, ("x/a.png", "y/a.png", "b.jpg", "b.png"))
    text = "file,label\na.png,1\ny/a.png,2\nb,3\nb.jpg,4\n"
    new = attach(source, write(tmp_path, text), on_bad="quarantine")
    assert found_in(new) == [(2, "ambiguous image"), (4, "ambiguous image")]
    assert [r.values for r in new.splits["train"]] == [{}, {"label": 1}, {"label": 3}, {}]
    splits = {
        s: [Record(tmp_path / s / "images/a.png", "a.png", 0)] for s in ("train", "validation")
    }
    source = Source("set", "voc", [], splits)
    for text in ("path,split,y\na.png,val,q\n", "path,y\ndata/val/a.png,q\n"):
        # The second holds an image of a split without saying where that lies.
        new = attach(source, write(tmp_path, text))
        assert values_of(new, "validation") == {"a.png": {"y": 0}}
        assert values_of(new) == {"a.png": {}}
    del splits["validation"]
    with pytest.raises(BadLabels, match="missing image|no column"):
        attach(source, write(tmp_path, "path,y\ntrain/images/a.png,1\ndata/val/a.png,q\n"))


# === Kinds ===

MANY = [str(i) for i in range(25)]
# Cells, kind that is said, class names or None, values (None: not labelled).
KINDS = {
    "text": (["b", "a b", "", "B"], None, ["B", "a b", "b"], [2, 1, None, 0]),
    "integers": (["10", "9", "", "10"], None, ["9", "10"], [1, 0, None, 1]),
    "below 0": (["-1", "1", "0"], None, ["-1", "0", "1"], [0, 2, 1]),
    "codes": (["007", "7", "01"], None, ["007", "01", "7"], [0, 2, 1]),
    "bool": (["True", "False", "True"], None, ["False", "True"], [1, 0, 1]),
    "none is a class": (["none", "crack", "NA"], None, ["NA", "crack", "none"], [2, 1, 0]),
    "integers and text": (["1", "2", "x"], None, ["1", "2", "x"], [0, 1, 2]),
    "decimals": (["0.5", "-1e3", "", "2"], None, None, [0.5, -1000.0, None, 2.0]),
    "decimals of few values": (["1.0", "0.0", "1.0"], None, None, [1.0, 0.0, 1.0]),
    "said class": (["1.0", "0", "10.0"], "class", ["0", "1", "10"], [1, 0, 2]),
    "decimals said class": (["1.5", "0.5"], "class", ["0.5", "1.5"], [1, 0]),
    "said number": (["1", "0", ""], "number", None, [1.0, 0.0, None]),
    "many integers": (MANY, None, None, [float(i) for i in MANY]),
    "many integers said class": (MANY, "class", MANY, list(range(25))),
    "many texts that come again": (
        [f"t{i:02}" for i in range(25)] * 2,
        None,
        [f"t{i:02}" for i in range(25)],
        list(range(25)) * 2,
    ),
    "commas said class": (['"1,2"', '"3,4"'], "class", ["1,2", "3,4"], [0, 1]),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(tmp_path, name):
    cells, kind, classes, expected = KINDS[name]
    source = source_of(tmp_path, [f"{i}.png" for i in range(len(cells))])
    text = "file,x,always\n" + "".join(f"{i}.png,{c},1\n" for i, c in enumerate(cells))
    new = attach(source, write(tmp_path, text), {"x": kind} if kind else None)
    assert new.columns == {"x": classes, "always": ["1"]} and new.problems == []
    values = [r.values.get("x") for r in new.splits["train"]]
    assert values == expected
    assert {type(v) for v in values if v is not None} == {float if classes is None else int}


def test_columns_without_cells_and_skipped_ones(tmp_path):
    file = write(tmp_path, "file,x,y,z\na.png,1,,t\nb.png,2,,u\n")
    assert list(attach(source_of(tmp_path), file).columns) == ["x", "z"]
    assert list(attach(source_of(tmp_path), file, {"z": "skip"}).columns) == ["x"]
    with pytest.raises(ValueError, match="no column of labels"):
        attach(source_of(tmp_path), file, {"x": "skip", "z": "skip"})


@pytest.mark.parametrize(
    "kinds, message",
    [
        ({"w": "class"}, "unknown column 'w'; there are \\['x', 'y'\\]"),
        ({"x": "float"}, "kinds={'x': 'float'}"),
        ({"file": "class"}, "unknown column 'file'"),
    ],
)
def test_bad_kinds(tmp_path, kinds, message):
    with pytest.raises(ValueError, match=message):
        attach(source_of(tmp_path), write(tmp_path, "file,x,y\na.png,1,2\n"), kinds)


def test_text_of_many_values_is_refused(tmp_path):
    source = source_of(tmp_path, [f"{i}.png" for i in range(30)])
    file = write(tmp_path, "file,x,t\n" + "".join(f"{i}.png,1,note {i}\n" for i in range(30)))
    with pytest.raises(ValueError, match="'t' holds 30 texts in 30 rows.*'skip'"):
        attach(source, file, on_bad="quarantine")
    assert attach(source, file, {"t": "skip"}).columns == {"x": ["1"]}


# === What can't be used ===

# Content, line, kind: what is raised under quarantine too.
BAD_FILES = {
    "no bytes": (b"", None, "empty label file"),
    "blank": (b"\xef\xbb\xbf \r\n \n", None, "empty label file"),
    "header alone": (b"file,x\n", 1, "empty label file"),
    "latin-1": (b"file,x\na.png,y\nb.png,\xe9\n", 3, "not UTF-8"),
    "utf-16": ("file,x\na.png,y\n".encode("utf-16"), 1, "not UTF-8"),
    "no header": (b"a.png,x\nb.png,y\n", 1, "no header"),
    "one column": (b"file\na.png\n", 1, "one column"),
    "no delimiter": (b"file x\na.png 1\n", 1, "one column"),
    "a name twice": (b"file,x,x\na.png,1,2\n", 1, "repeated column"),
    "no name": (b"\nfile,,x\na.png,1,2\n", 2, "unnamed column"),
    "open quote": (b'file,x\na.png,1\nb.png,"2\nc.png,3\n', 3, "unreadable row"),
    "decimal comma": (b"file;x;y\na.png;1;z\nb.png;1,5;z\n", 3, "decimal comma"),
    "decimal comma in quotes": (b'file,x\na.png,"0,5"\nb.png,"1,5"\n', 2, "decimal comma"),
}


@pytest.mark.parametrize("on_bad", ["strict", "quarantine"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(tmp_path, name, on_bad):
    content, line, kind = BAD_FILES[name]
    file = write(tmp_path, content)
    with pytest.raises(BadLabels) as raised:
        attach(source_of(tmp_path), file, on_bad=on_bad)
    problem = raised.value.problem
    assert (problem.file, problem.line, problem.kind) == (str(file), line, kind)


# Rows after `file,split,x,n`, `a.png,train,k,0.5`: lines and kinds; values of b.png and c.png.
BAD_ROWS = {
    "missing file": (["q.png,train,k,1"], [(3, "missing image")], {}, {}),
    "empty name": ([",train,k,1"], [(3, "missing image")], {}, {}),
    "duplicate": (
        ["b.png,train,k,1", "b.png,train,k,1"],
        [(4, "duplicate row")],
        {"x": 0, "n": 1},
        {},
    ),
    "duplicate that differs": (
        ["b.png,train,k,1", "b.png,train,k,2", "b.png,train,k,1"],
        [(4, "duplicate row"), (5, "duplicate row")],
        {"x": 0},
        {},
    ),
    "duplicate by another name": (
        ["b,train,k,1", "./b.png,train,,1"],
        [(4, "duplicate row")],
        {"n": 1},
        {},
    ),
    "too few": (["b.png,train,k", "c.png,train,k,2"], [(3, "ragged row")], {}, {"x": 0, "n": 2}),
    "too many": (["b.png,train,k,1,5"], [(3, "ragged row")], {}, {}),
    "after a cell of two lines": (
        ['b.png,train,"k\nl",1', "q.png,train,k,1"],
        [(5, "missing image")],
        {"x": 1, "n": 1},
        {},
    ),
    "nan": (["b.png,train,k,NaN"], [(3, "not a finite number")], {"x": 0}, {}),
    "nan of a class": (["b.png,train,nan,2"], [(3, "not a finite number")], {"n": 2}, {}),
    "infinite": (["b.png,train,k,-inf"], [(3, "not a finite number")], {"x": 0}, {}),
    "too large": (["b.png,train,k,1e999"], [(3, "not a finite number")], {"x": 0}, {}),
    "no number": (["b.png,train,k,many"], [(3, "not a number")], {"x": 0}, {}),
    "python's number": (["b.png,train,k,1_0"], [(3, "not a number")], {"x": 0}, {}),
    "unknown split": (["b.png,tarin,k,1"], [(3, "unknown split")], {}, {}),
    "no split": (["b.png,,k,1"], [], {"x": 0, "n": 1}, {}),
    "two of a row": (
        ["b.png,train,NAN,x"],
        [(3, "not a finite number"), (3, "not a number")],
        {},
        {},
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows(tmp_path, name):
    rows, problems, b, c = BAD_ROWS[name]
    text = "\n".join(["file,split,x,n", "a.png,train,k,0.5", *rows])
    file = write(tmp_path, text, "é labels.csv")
    source = source_of(tmp_path)
    kinds = {"n": "number"}
    new = attach(source, file, kinds, on_bad="quarantine")
    assert found_in(new) == problems
    assert all(p.file == str(file) and p.image is None for p in new.problems)
    assert values_of(new) == {"a.png": {"x": 0, "n": 0.5}, "b.png": b, "c.png": c}
    if problems:
        with pytest.raises(BadLabels) as raised:
            attach(source, file, kinds)
        assert (raised.value.problem.line, raised.value.problem.kind) == problems[0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,x\nq.png,1\n", "no column of .* names images"),
        ("file,xmin,ymin,x\na.png,1,2,3\n", "\\['xmin'\\], of boxes"),
        ("file,bbox,x\na.png,1,3\n", "of boxes"),
    ],
)
def test_tables_of_something_else(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        attach(source_of(tmp_path), write(tmp_path, text), on_bad="quarantine")
    folder_of(tmp_path, "a.png")
    assert recognise(tmp_path) is None


def test_boxes_may_be_skipped(tmp_path):
    file = write(tmp_path, "file,bbox,x\na.png,1,3\n")
    assert attach(source_of(tmp_path), file, {"bbox": "skip"}).columns == {"x": ["3"]}


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv"):
        attach(source_of(tmp_path), tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="none"):
        read(tmp_path / "none")
    with pytest.raises(ValueError, match="no image"):
        read(tmp_path)
    with pytest.raises(ValueError, match="on_bad='x'"):
        read(tmp_path, on_bad="x")
    assert recognise(tmp_path / "none") is None and recognise(tmp_path) is None


# === Splits ===


def test_a_split_column_moves_images_of_one_split(tmp_path):
    text = "file,Split,x\na.png,valid,1\nb.png,TRAIN,2\n"
    new = attach(source_of(tmp_path), write(tmp_path, text))
    assert new.columns == {"x": ["1", "2"]}
    assert values_of(new) == {"b.png": {"x": 1}, "c.png": {}}
    assert values_of(new, "val") == {"a.png": {"x": 0}}
    new = attach(source_of(tmp_path), write(tmp_path, text), {"Split": "class"})
    assert new.columns == {"Split": ["TRAIN", "valid"], "x": ["1", "2"]} and len(new.splits) == 1


def test_a_split_column_must_agree_with_several_splits(tmp_path):
    source = source_of(tmp_path)
    source.splits["validation"] = source_of(tmp_path / "v", ("d.png",)).splits["train"]
    file = write(tmp_path, "file,split,x\na.png,test,1\nb.png,train,1\nd.png,val,2\n")
    new = attach(source, file, on_bad="quarantine")
    assert found_in(new) == [(2, "another split")]
    assert values_of(new) == {"a.png": {}, "b.png": {"x": 0}, "c.png": {}}
    assert values_of(new, "validation") == {"d.png": {"x": 1}}


# === Folders ===


def test_folder_with_a_csv(tmp_path):
    folder_of(tmp_path, "pics/b.png", "pics/a.png", "pics/c.png")
    file = write(tmp_path, "image,label\nb,x\na,y\n")
    assert recognise(tmp_path) == "'labels.csv', whose column 'image' names images"
    source = read(tmp_path)
    assert source.name == tmp_path.name and source.layout == "columns" and source.names == []
    assert source.columns == {"label": ["x", "y"]} and source.files == [file]
    assert values_of(source) == {
        "pics/a.png": {"label": 1},
        "pics/b.png": {"label": 0},
        "pics/c.png": {},
    }
    first = source.splits["train"][0]
    assert first.path.is_file() and first.objects is None and first.mask is None
    assert first.where == f"{file}, line 3"
    assert [r.image_id for r in source.splits["train"]] == [0, 1, 2]
    assert read(file).splits == source.splits


def test_splits_of_folders_and_of_a_column(tmp_path):
    folder_of(tmp_path, "train/a.png", "valid/a.png", "b.png")
    write(tmp_path, "path,x\ntrain/a.png,1\nvalid/a.png,2\nb.png,3\n")
    source = read(tmp_path)
    assert {s: values_of(source, s) for s in source.splits} == {
        "train": {"b.png": {"x": 2}, "train/a.png": {"x": 0}},
        "val": {"valid/a.png": {"x": 1}},
    }
    write(tmp_path, "path,split,x\na.png,train,1\na.png,val,2\nb.png,test,3\n")
    source = read(tmp_path)
    assert {s: values_of(source, s) for s in source.splits} == {
        "test": {"b.png": {"x": 2}},
        "train": {"train/a.png": {"x": 0}},
        "val": {"valid/a.png": {"x": 1}},
    }
    assert all(r.image_id == 0 for records in source.splits.values() for r in records)
    write(tmp_path, "path,split,x\ntrain/a.png,train,1\n")
    source = read(tmp_path, on_bad="quarantine")
    assert [(p.kind, p.image) for p in source.problems] == [("no split", "b.png")]
    assert [len(source.splits[s]) for s in ("train", "val")] == [1, 1]
    with pytest.raises(BadLabels, match="no split"):
        read(tmp_path)


def test_a_csv_a_split(tmp_path):
    folder_of(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path, "id,x\na,1\nb,2\n", "train.csv")
    write(tmp_path, "id\nc\n", "test.csv")
    assert recognise(tmp_path)
    source = read(tmp_path)
    assert values_of(source) == {"a.png": {"x": 0}, "b.png": {"x": 1}}
    assert values_of(source, "test") == {"c.png": {}} and source.problems == []
    write(tmp_path, "id,x\nb,2\n", "val.csv")
    source = read(tmp_path, on_bad="quarantine")
    (problem,) = source.problems
    assert (problem.line, problem.kind) == (2, "duplicate row") and "train.csv" in problem.message
    write(tmp_path, "id,x\na,2\n", "sample.csv")
    assert recognise(tmp_path) is None
    with pytest.raises(ValueError, match="several files of columns.*give the path"):
        read(tmp_path)
    assert read(tmp_path / "sample.csv").columns == {"x": ["2"]}


@pytest.mark.parametrize("split", ["", "Train/"])
def test_class_folders(tmp_path, split):
    folder_of(tmp_path, *(split + n for n in ("dog é/x.jpg", "cat/y.jpg", "cat/more/x.jpg")))
    assert "2 classes" in recognise(tmp_path)
    source = read(tmp_path)
    assert source.columns == {"class": ["cat", "dog é"]} and source.problems == []
    assert values_of(source) == {
        f"{split}cat/more/x.jpg": {"class": 0},
        f"{split}cat/y.jpg": {"class": 0},
        f"{split}dog é/x.jpg": {"class": 1},
    }


def test_class_folders_of_several_splits(tmp_path):
    folder_of(tmp_path, "train/b/1.png", "train/c/1.png", "val/a/1.png", "test/1.png")
    source = read(tmp_path)
    assert source.columns == {"class": ["a", "b", "c"]}
    assert {s: [r.values for r in rs] for s, rs in source.splits.items()} == {
        "test": [{}],
        "train": [{"class": 1}, {"class": 2}],
        "val": [{"class": 0}],
    }
    assert source.splits["val"][0].image_id == 0
    with pytest.raises(ValueError, match="`kinds` is for columns"):
        read(tmp_path, kinds={"class": "number"})


@pytest.mark.parametrize("names", [("a.png",), ("images/a.png", "masks/b.png"), ("train/a.png",)])
def test_folders_that_are_no_classes(tmp_path, names):
    folder_of(tmp_path, *names)
    assert recognise(tmp_path) is None
    with pytest.raises(ValueError, match="neither a CSV nor a folder a class"):
        read(tmp_path)
