"""What the XML of an image states."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from mtl_keras.data.files import finite
from mtl_keras.data.records import Bad, Problems
from mtl_keras.data.voc.folders import Item


@dataclass
class _Element:
    tag: str
    line: int
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def all(self, tag: str) -> list[_Element]:
        return [child for child in self.children if child.tag == tag]

    def first(self, tag: str) -> _Element | None:
        return next(iter(self.all(tag)), None)

    def value(self, tag: str) -> str:
        """Text of a child, without needless white space; empty if there is none."""
        child = self.first(tag)
        return "" if child is None else " ".join(child.text.split())


@dataclass
class Labelled:
    """An object of an XML; its box as the XML means it, counted from 0."""

    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool
    line: int
    is_usable: bool = True


@dataclass
class Xml:
    """What an XML states of an image."""

    size: tuple[int, int] | None
    objects: list[Labelled]


def read_annotation(item: Item, root: Path, problems: Problems) -> Xml | None:
    """What an XML states; `None` if it can't be used."""

    def note(bad: Bad) -> None:
        problems.add(item.xml, bad.kind, str(bad), bad.line, item.filename)

    try:
        top = _parse_xml(item.xml.read_bytes())
        size = _size(top)
    except Bad as bad:
        note(bad)
        return None
    objects, is_whole = [], True
    for element in top.all("object"):
        try:
            objects.append(_labelled(element))
        except Bad as bad:
            note(bad)
            is_whole = False
    if not is_whole:
        return None
    for found in objects:
        x0, y0, x1, y1 = found.box
        height, width = size or (math.inf, math.inf)
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            found.is_usable = False
            problems.add(
                item.xml,
                "box without area",
                f"the box of {found.name!r} (image {item.filename!r}) lies outside of the image; "
                f"from 0, it is {found.box}",
                found.line,
            )
    return Xml(size, objects)


def _parse_xml(content: bytes) -> _Element:
    """The outermost element. A document type, which may hold entities, is refused unread."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    opened = [_Element("", 0)]

    def start(tag: str, attributes: dict) -> None:
        element = _Element(tag, parser.CurrentLineNumber)
        opened[-1].children.append(element)
        opened.append(element)

    def text(data: str) -> None:
        opened[-1].text += data

    def doctype(*parts: object) -> None:
        raise Bad(
            "document type in XML",
            "a DOCTYPE is refused, since it may hold entities; delete it",
            line=parser.CurrentLineNumber,
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: opened.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        message = f"{expat.ErrorString(error.code)}; the file is cut short or no XML"
        raise Bad("damaged XML", message, line=error.lineno) from error
    except (LookupError, ValueError) as error:
        raise Bad("damaged XML", f"{error}; save it as UTF-8", line=1) from error
    top = opened[0].children[0]
    if top.tag != "annotation":
        message = f"it should hold <annotation>, not <{top.tag[:50]}>"
        raise Bad("other XML", message, line=top.line)
    return top


def _size(top: _Element) -> tuple[int, int] | None:
    size = top.first("size")
    if size is None:
        return None
    found = []
    for tag in ("height", "width"):
        text = size.value(tag)
        value = finite(text) if text else 0.0
        if value is None or value < 0 or value % 1:
            raise Bad("image size", f"<{tag}> is {text!r:.50}, no count of pixels", line=size.line)
        found.append(int(value))
    return (found[0], found[1]) if all(found) else None


def _labelled(element: _Element) -> Labelled:
    name = element.value("name")
    if not name:
        raise Bad("object without a class", "<object> lacks a <name>", line=element.line)
    bndbox = element.first("bndbox")
    if bndbox is None:
        message = f"<object> {name!r} lacks a <bndbox>; it should hold xmin, ymin, xmax, ymax"
        raise Bad("object without a box", message, line=element.line)
    ends = {}
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        child, text = bndbox.first(tag), bndbox.value(tag)
        value = finite(text)
        if value is None:
            message = f"<{tag}> of {name!r} is {text!r:.50}; it should be a finite number"
            raise Bad("box of no numbers", message, line=(child or bndbox).line)
        ends[tag] = value
    if ends["xmax"] < ends["xmin"] or ends["ymax"] < ends["ymin"]:
        message = f"the box of {name!r} ends before it begins: {ends}"
        raise Bad("reversed box", message, line=bndbox.line)
    difficult = element.value("difficult").lower()
    if difficult not in ("", "0", "1", "false", "true", "unspecified"):
        message = f"<difficult> of {name!r} is {difficult!r:.50}; it should be 0 or 1"
        raise Bad("unknown flag", message, line=element.first("difficult").line)
    box = (ends["xmin"] - 1, ends["ymin"] - 1, ends["xmax"], ends["ymax"])
    return Labelled(name, box, difficult in ("1", "true"), element.line)
