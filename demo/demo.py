"""Find nuclei in a real picture, fine-tune the model on other classes, export it, serve it.

Run by `make demo`. Writes `prediction.png` and `saved_model/` beside this file.
"""

import os
import pathlib
import shutil
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import skimage
import tensorflow as tf

import mtl_keras as mtl

HERE = pathlib.Path(__file__).parent
MODEL = "efficientnet_lite0_hard_nuclei"
PICTURE = pathlib.Path(skimage.__file__).parent / "data" / "ihc.png"
keras.utils.set_random_seed(0)

# === 1. Predict with a published model on a picture that scikit-image ships ===
print(f"1. {MODEL} on {PICTURE.name}")
model = mtl.zoo.load(MODEL)
(found,) = model.predict_images([PICTURE])
share = (found["segmentation"]["mask"] > 0).mean()
print(f"   {len(found['detection']['boxes'])} boxes; the mask covers {share:.1%} of the picture")
mtl.draw.draw_predictions(PICTURE, found, ["nucleus"]).save(HERE / "prediction.png")
print(f"   see {HERE / 'prediction.png'}")

# === 2. Fine-tune on ten other classes: trunk and neck stay, both heads are new ===
print("2. Fine-tuning on handwritten digits: boxes and masks of ten classes")
digits = mtl.data.digits(train=200, val=16, data_dir=HERE / "data")
model = mtl.zoo.load(
    MODEL, num_classes={"detection": 10, "segmentation": 11}, image_size=(192, 192)
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
