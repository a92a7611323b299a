"""The neck: a feature pyramid network between trunk and heads."""

import keras
from keras import layers


def feature_pyramid(
    channels: dict[str, int], levels: list[str], width: int, name: str = "neck"
) -> keras.Model:
    """Makes a feature pyramid network.

    Coarse features are enlarged and added to finer ones, so that every level knows what the
    whole picture shows; one 3 x 3 convolution a level then smooths the sum.

    Args:
        channels: Dict, each level of the trunk to its number of channels.
        levels: Levels to give; the pyramid starts at the coarsest level of `channels`.
        width: Integer, channels of every level that comes out.
        name: String, name of the model.

    Returns:
        A `keras.Model`, dict of features to dict of features.

    Reference:
        Lin et al. 2017, "Feature Pyramid Networks for Object Detection", section 3. Deviation:
        BatchNorm and ReLU after the last convolution of a level.

    Example:

    ```python
    from mtl_keras.sharing.neck import feature_pyramid
    neck = feature_pyramid({"P3": 40, "P4": 112}, ["P3", "P4"], width=32)
    assert neck.output["P3"].shape[-1] == 32
    ```
    """
    finest = min(levels)
    used = sorted((level for level in channels if level >= finest), reverse=True)
    inputs = {level: keras.Input((None, None, channels[level]), name=level) for level in used}
    merged, outputs = None, {}
    for level in used:
        x = layers.Conv2D(width, 1, name=f"lateral_{level}")(inputs[level])
        if merged is not None:
            larger = layers.UpSampling2D(2, interpolation="nearest", name=f"enlarge_{level}")(
                merged
            )
            x = layers.Add(name=f"add_{level}")([x, larger])
        merged = x
        if level in levels:
            x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"smooth_{level}")(x)
            x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3, name=f"bn_{level}")(x)
            outputs[level] = layers.Activation("relu", name=f"relu_{level}")(x)
    return keras.Model(inputs, outputs, name=name)
