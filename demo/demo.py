"""Find things in a photograph, fine-tune a model on other classes, export it, serve it.

Run by `make demo`. Writes `prediction.jpg` and `saved_model/` beside this file.
"""

import collections
import os
import pathlib
import shutil
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import sklearn
import tensorflow as tf

import mtl_keras as mtl

HERE = pathlib.Path(__file__).parent
FACADES, NUCLEI = "efficientnet_lite0_hard_facades", "efficientnet_lite0_hard_nuclei"
# By danielbuechele (https://www.flickr.com/photos/danielbuechele/6061409035), CC BY 2.0.
PICTURE = pathlib.Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"
keras.utils.set_random_seed(0)

# === 1. Predict with a published model on a photograph that scikit-learn ships ===
print(f"1. {FACADES} on {PICTURE.name}")
model = mtl.zoo.load(FACADES)
names = mtl.zoo.info(FACADES)["classes"]["detection"]
(found,) = model.predict_images([PICTURE])
share = (found["segmentation"]["mask"] > 0).mean()
counts = collections.Counter(names[c] for c in found["detection"]["classes"])
said = ", ".join(f"{count} {name}" for name, count in counts.most_common())
print(f"   boxes: {said}; the mask covers {share:.1%} of the picture")
drawn = mtl.draw.draw_predictions(PICTURE, found, names)
drawn.save(HERE / "prediction.jpg", quality=88)
print(f"   see {HERE / 'prediction.jpg'}")

# === 2. Fine-tune on ten other classes: trunk and neck stay, both heads are new ===
print("2. Fine-tuning on handwritten digits: boxes and masks of ten classes")
digits = mtl.data.digits(train=200, val=16, data_dir=HERE / "data")
model = mtl.zoo.load(
    NUCLEI, num_classes={"detection": 10, "segmentation": 11}, image_size=(192, 192)
)
batches = mtl.data.batches(
    digits,
    "train",
    model.tasks,
    image_size=192,
    batch_size=8,
    augment=mtl.data.Augment(scale=(0.8, 1.25), flip=None),
)
model.compile(optimizer=keras.optimizers.AdamW(1e-3, global_clipnorm=5.0))
started = time.time()
losses = model.fit(batches, epochs=3).history["loss"]
print(f"   loss {losses[0]:.2f} -> {losses[-1]:.2f} in {time.time() - started:.0f} s")
assert losses[-1] < losses[0], f"the loss did not fall: {losses}"

# === 3. Export for serving, and reload with TensorFlow alone ===
print("3. Exporting")
shutil.rmtree(HERE / "saved_model", ignore_errors=True)
mtl.export.saved_model(model, HERE / "saved_model")
serve = tf.saved_model.load(str(HERE / "saved_model")).signatures["serving_default"]

scene = next(mtl.data.examples(digits, "val").as_numpy_iterator())["image"]
for image in (mtl.data.read_image(PICTURE), scene):
    (ours,) = model.predict_images([image], score_threshold=0.0)
    served = {name: value.numpy()[0] for name, value in serve(images=image[None]).items()}
    count = int(served["num_detections"])
    boxes = served["detection_boxes"][:count][:, [1, 0, 3, 2]]  # clients expect y1, x1, y2, x2
    np.testing.assert_allclose(boxes, ours["detection"]["boxes"], atol=0.01)
    np.testing.assert_allclose(
        served["detection_scores"][:count], ours["detection"]["scores"], atol=1e-4
    )
    np.testing.assert_array_equal(served["detection_classes"][:count], ours["detection"]["classes"])
    same = (served["segmentation_mask"] == ours["segmentation"]["mask"]).mean()
    assert same > 0.999, f"only {same:.2%} of the pixels of the masks agree"
    height, width = image.shape[:2]
    print(f"   {width} x {height}: {count} boxes agree, {same:.2%} of the mask's pixels agree")
print(f"Done: {HERE / 'saved_model'} gives what the model gives.")
