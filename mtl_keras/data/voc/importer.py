"""Read Pascal VOC folders: an XML an image, and PNGs of classes and objects of pixels."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from mtl_keras.data.files import relative
from mtl_keras.data.records import Bad, Object, Problems, Record, Source
from mtl_keras.data.voc.annotations import Xml, read_annotation
from mtl_keras.data.voc.class_names import check_palette, names_of, palette_of
from mtl_keras.data.voc.colours import STANDARD, Colours
from mtl_keras.data.voc.folders import Item, items_of, root_of, roots_in, seen_in
from mtl_keras.data.voc.maps import IGNORED, Maps, class_mask, read_maps, region_mask


def read(path: str | os.PathLike, on_bad: str = "strict") -> Source:
    """Read a folder in the layout of Pascal VOC.

    What may lie in the folder (the case of folders' names does not matter):

    - `JPEGImages/` (or `images/`) and `Annotations/`, an XML an image. `ImageSets/Main/` lists the
      images of `train`, `val` and `test`; `trainval` is a split only where neither `train` nor
      `val` is listed, since it is both together. Images that only `ImageSets/Segmentation/` lists
      join the split of that name. Images that no list names are not of the set. Without lists,
      folders `train`, `val` and `test` in the folder of images are the splits, or all is `train`.
    - XML beside the images, as LabelImg writes them, also in `train/`, `valid/` and `test/`.
      `valid` and `validation` become the split `val`.

    What becomes of the XML:

    - Boxes are counted from 1 and hold their last pixel: `x0 = xmin - 1`, `x1 = xmax`.
    - `difficult` objects become crowds (`is_crowd`): neither taught, nor taught as background, nor
      counted in evaluation, which is how VOC evaluates.
    - `truncated`, `occluded`, `pose`, polygons, actions and `part`s are not read.
    - An image without XML is not labelled (`objects=None`). One whose XML holds no `object` has
      none. A width or height of 0 in `size` says nothing.
    - Names of classes are those that occur, in the order of VOC's list if all are in it, else
      sorted. `labelmap.txt` or `class_names.txt` in the folder state the names and their order.
    - A document type is refused, and with it all entities.

    What becomes of the masks in `SegmentationClass/` and `SegmentationObject/`:

    - They are 8-bit palette (or grey) PNGs, whose index counts and not the colour; or RGB, as CVAT
      exports them, whose colours are those that `labelmap.txt` states (`name:r,g,b`), else those of
      VOC's palette, as always in object masks. Index 0 is background, 255 is ignored. Index i of
      a class mask is the i-th class of `labelmap.txt`, `class_names.txt` or VOC's list.
    - Index i of an object mask is the i-th object of the XML, if that holds for all indices of the
      image: at least half of the box around the region lies in the object's box, and the class
      mask gives the region most of its pixels in the object's class. Where it does not hold, each
      region goes to the object of its class that overlaps it most, pairs of the largest overlap
      (intersection over union of boxes) first. A region that is left becomes an object of its own,
      of the class that the class mask states. An object that is left has a box and no pixels. If
      no region fits any object at all, the image is left out.
    - Without an XML, objects are the regions. Without a class mask, the classes of pixels are those
      of the regions' objects.

    An image is left out whole if a part of its labels can't be read, since what is lacking would be
    taught as background. A box that lies outside of the image covers none of it; such an object is
    left out alone.

    Args:
        path: The folder, or one that holds `VOCdevkit/VOC2012` or the like.
        on_bad: `"strict"`: raise the first problem. `"quarantine"`: list problems.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it does not have this layout, or if the indices of class masks have no names.
        BadLabels: Under `"strict"`, for the first problem; always for a list that is not UTF-8.

    Reference:
        Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.

    Example:
        ```python
        import pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import voc

        folder = pathlib.Path(tempfile.mkdtemp())
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "a.png")
        box = "<bndbox><xmin>6</xmin><ymin>7</ymin><xmax>25</xmax><ymax>16</ymax></bndbox>"
        (folder / "a.xml").write_text(
            f"<annotation><object><name>cell</name>{box}</object></annotation>"
        )
        source = voc.read(folder)
        assert source.names == ["cell"]
        assert source.splits["train"][0].objects[0].box == (5.0, 6.0, 25.0, 16.0)
        ```
    """
    problems = Problems(on_bad)
    root = root_of(Path(path).expanduser())
    files, items = items_of(root, problems)
    read_xml: list[tuple[Item, Xml | None]] = []
    for item in items:
        xml = None
        if item.xml is not None:
            files.append(item.xml)
            xml = read_annotation(item, root, problems)
            if xml is None:
                continue
        read_xml.append((item, xml))
    used = {o.name for _, xml in read_xml if xml for o in xml.objects if o.is_usable}
    palette, colours, is_stated = palette_of(root, used, read_xml, files)
    masked = []
    for item, xml in read_xml:
        files += [p for p in (item.class_map, item.object_map) if p is not None]
        try:
            masked.append((item, xml, read_maps(item, xml, palette, colours)))
        except Bad as bad:
            problems.add(bad.file, bad.kind, str(bad), image=item.filename)
    if palette and not is_stated:
        check_palette(root, masked, palette)
    used = {o.name for _, xml, _ in masked if xml for o in xml.objects if o.is_usable}
    used |= {name for _, _, maps in masked for name in maps.extra.values()}
    in_maps = {palette.get(i) for _, _, maps in masked for i in maps.classes} - {None, ""}
    names, mask_names = names_of(used, in_maps, palette, is_stated)
    if not any(item.class_map for item, _, _ in masked):
        mask_names = None
    splits: dict[str, list[Record]] = {item.split: [] for item in items}
    for item, xml, maps in masked:
        record = _record(item, xml, maps, root, names, mask_names, palette, colours)
        splits[item.split].append(record)
    return Source(
        name=root.resolve().name or "voc",
        layout="voc",
        names=names,
        splits=splits,
        mask_names=mask_names,
        problems=problems.found,
        files=files,
    )


def recognise(path: str | os.PathLike) -> str | None:
    """Says what was seen if a folder has the layout of Pascal VOC.

    Args:
        path: The folder.

    Returns:
        One sentence, or `None`.

    Example:
        ```python
        import pathlib, tempfile
        from mtl_keras.data import voc

        folder = pathlib.Path(tempfile.mkdtemp())
        assert voc.recognise(folder) is None
        for part in ("JPEGImages", "Annotations"):
            (folder / part).mkdir()
        assert voc.recognise(folder) == "Pascal VOC: JPEGImages/ and Annotations/"
        ```
    """
    folder = Path(path).expanduser()
    roots = roots_in(folder) if folder.is_dir() else []
    if len(roots) > 1:
        return f"several Pascal VOC folders: {', '.join(map(str, roots))}"
    return seen_in(roots[0]) if roots else None


def _record(
    item: Item,
    xml: Xml | None,
    maps: Maps,
    root: Path,
    names: list[str],
    mask_names: list[str] | None,
    palette: dict[int, str],
    colours: Colours,
) -> Record:
    ids = {name: i for i, name in enumerate(names)}
    objects: list[Object] | None = None
    by_region = [0] * 256
    by_region[IGNORED] = IGNORED
    if xml is not None or item.object_map is not None:
        objects = []
    for i, found in enumerate([] if xml is None else xml.objects):
        region = maps.region_of.get(i)
        if not found.is_usable:
            if region is not None:
                by_region[region] = IGNORED
            continue
        mask = None
        if region is not None:
            mask = partial(region_mask, item.object_map, region)
            by_region[region] = IGNORED if found.is_difficult else ids[found.name] + 1
        where = f"{relative(item.xml, root)}, line {found.line}"
        objects.append(Object(ids[found.name], found.box, mask, found.is_difficult, where))
    for region, name in maps.extra.items():
        where = f"{relative(item.object_map, root)}, region {region}"
        mask = partial(region_mask, item.object_map, region)
        objects.append(Object(ids[name], None, mask, where=where))
        by_region[region] = ids[name] + 1
    mask = None
    if item.class_map is not None:
        of_mask = {name: i for i, name in enumerate(mask_names or names)}
        table = [IGNORED] * 256
        table[0] = 0
        for index, name in palette.items():
            # A class that no image holds has no id.
            table[index] = of_mask[name] + 1 if name in of_mask else 0
        mask = partial(class_mask, item.class_map, tuple(table), colours)
    elif item.object_map is not None and mask_names is None:
        mask = partial(class_mask, item.object_map, tuple(by_region), STANDARD)
    return Record(
        path=item.path,
        filename=item.filename,
        image_id=item.number,
        objects=objects,
        has_masks=item.object_map is not None,
        mask=mask,
        size=None if xml is None else xml.size,
        where="" if item.xml is None else str(item.xml),
    )
