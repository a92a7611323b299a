"""Small labelled sets of every layout, for tests that spoil them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60
BOX = (5, 6, 25, 16)
BACK, FRONT = (20, 30, 90), (220, 40, 30)
LAYOUTS = ("coco", "coco_panoptic", "voc", "yolo", "mask_folders", "columns")
IMAGES = {
    "coco": "images",
    "coco_panoptic": "train",
    "voc": "JPEGImages",
    "yolo": "images/train",
    "mask_folders": "images",
    "columns": "images",
}


def pixels(size=(HEIGHT, WIDTH), box=BOX, back=BACK, front=FRONT, dtype="uint8"):
    """An image of one colour with an object of another."""
    image = np.empty((*size, len(back)), dtype)
    image[:] = back
    image[box[1] : box[3], box[0] : box[2]] = front
    return image


@dataclass
class LabelledSet:
    """A folder of one layout; `add` an image, and `write` the labels at the end.

    What is between may change `content` (the JSON), `lines` (of the CSV) and the files.
    """

    folder: Path
    layout: str
    content: dict = field(default_factory=dict)
    lines: list = field(default_factory=lambda: ["filename,kind"])

    def __post_init__(self):
        self.images = self.folder / IMAGES[self.layout]
        self.images.mkdir(parents=True, exist_ok=True)
        category = {"id": 7, "name": "cell", "isthing": 1}
        self.content = {"images": [], "categories": [category], "annotations": []}
        for name in {"coco_panoptic": ["panoptic_train"], "voc": ["Annotations"]}.get(
            self.layout, []
        ):
            (self.folder / name).mkdir()
        if self.layout == "yolo":
            (self.folder / "labels/train").mkdir(parents=True)
            (self.folder / "classes.txt").write_text("cell\n")
        if self.layout == "mask_folders":
            (self.folder / "masks").mkdir()
            (self.folder / "classes.txt").write_text("background\ncell\n")

    def picture(self, name, size=(HEIGHT, WIDTH), box=BOX):
        Image.fromarray(pixels(size, box)).save(self.images / name)

    def add(self, name, size=(HEIGHT, WIDTH), box=BOX, file=True):
        """Adds an image with its labels, or the labels alone."""
        if file:
            self.picture(name, size, box)
        stem = name.rpartition(".")[0]
        (height, width), (x0, y0, x1, y1) = size, box
        number = len(self.content["images"]) + 1
        entry = {"id": number, "file_name": name, "width": width, "height": height}
        self.content["images"].append(entry)
        if self.layout == "coco":
            flat = [x0, y0, x1, y0, x1, y1, x0, y1]
            self.content["annotations"].append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 7,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [flat],
                }
            )
        elif self.layout == "coco_panoptic":
            ids = np.zeros((height, width, 3), "uint8")
            ids[y0:y1, x0:x1, 1] = 1
            Image.fromarray(ids).save(self.folder / "panoptic_train" / f"{stem}.png")
            segment = {"id": 256, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            self.content["annotations"].append(
                {"image_id": number, "file_name": f"{stem}.png", "segments_info": [segment]}
            )
        elif self.layout == "voc":
            (self.folder / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation>\n<size><width>{width}</width><height>{height}</height></size>\n"
                f"<object>\n<name>cell</name>\n<bndbox>\n<xmin>{x0 + 1}</xmin>\n"
                f"<ymin>{y0 + 1}</ymin>\n<xmax>{x1}</xmax>\n<ymax>{y1}</ymax>\n</bndbox>\n"
                "</object>\n</annotation>\n",
                encoding="utf-8",
            )
        elif self.layout == "yolo":
            values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
            values += ((x1 - x0) / width, (y1 - y0) / height)
            (self.folder / "labels/train" / f"{stem}.txt").write_text(
                "0 " + " ".join(map(str, values)) + "\n"
            )
        elif self.layout == "mask_folders":
            mask = np.zeros((height, width), "uint8")
            mask[y0:y1, x0:x1] = 1
            Image.fromarray(mask).save(self.folder / "masks" / f"{stem}.png")
        else:
            self.lines.append(f"{name},{'flat' if height < width else 'tall'}")

    def write(self):
        if self.layout in ("coco", "coco_panoptic"):
            name = "train.json" if self.layout == "coco" else "panoptic_train.json"
            # One item a line, so that errors can name it.
            parts = [
                f'"{key}": [\n' + ",\n".join(json.dumps(item) for item in items) + "\n]"
                for key, items in self.content.items()
            ]
            (self.folder / name).write_text("{\n" + ",\n".join(parts) + "\n}", "utf-8")
        elif self.layout == "columns":
            (self.folder / "labels.csv").write_text("\n".join(self.lines) + "\n", "utf-8")
