import pytest
import rows

ROWS = rows.Rows(("name", "round"), ("ms",))


def test_rows_are_kept_as_they_are_measured(tmp_path):
    path = tmp_path / "results" / "some.csv"
    assert ROWS.read(path) == []
    for number in (1, 2):
        ROWS.append(path, {"name": "a", "round": number, "ms": 1.5})
    with path.open("a") as file:
        file.write("a,3,1")  # cut off: the program was killed
    found = ROWS.read(path)
    assert [ROWS.key(row) for row in found] == [("a", "1"), ("a", "2")]
    assert ROWS.key({"name": "a", "round": 1, "ms": 9}) == ("a", "1")
    ROWS.append(path, {"name": "b", "round": 1, "ms": 2})
    assert [row["ms"] for row in ROWS.read(path)] == ["1.5", "1.5", "2"]


def test_a_page_is_written_between_its_markers():
    page = "before\n<!-- cost -->\n{}<!-- /cost -->\nafter\n"
    assert rows.between(page.format("old\n"), "cost", "new\n") == page.format("new\n")
    for wrong in ("none", page.format("") * 2):
        with pytest.raises(SystemExit, match="cost"):
            rows.between(wrong, "cost", "new\n")


def test_table():
    assert rows.table(["a", "b"], [["x", "1"]]) == ["| a | b |", "| --- | ---: |", "| x | 1 |"]
