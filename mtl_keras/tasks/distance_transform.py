"""The exact Euclidean distance transform of many touching objects at once (TensorFlow only)."""

from typing import Any

# Steps between two looks at whether there is more to do, which cost about as much as a step.
STEPS = 4


def instance_distances(instances: Any, inside: Any) -> Any:
    """Measures how far each pixel of an instance is from the nearest pixel that is not of it.

    Distances are between centres of pixels, so that a pixel at the boundary of its instance has
    1. What is outside of the picture is no boundary: an object that the picture cuts off goes on
    there. All pixels of one number are one instance, connected or not.

    Distances along columns first, then along rows: with `g` the distance to the nearest other
    pixel in the own column, the squared distance is the minimum of `(x - x')² + g(x')²` over a
    row. Both passes are exact for any number of instances, since an `x'` of another instance is
    itself nearer than what it could stand for. The second minimum is taken by repeated steps to
    the neighbours, the k-th of which costs `2 k - 1`; they end when steps change nothing.

    Args:
        instances: Integer tensor `(height, width)`, the number of each pixel's instance, 0 where
            there is none.
        inside: Boolean tensor `(height, width)`, whether a pixel belongs to the picture. These
            pixels form a rectangle.

    Returns:
        Float32 tensor `(height, width)`, in pixels, 0 where there is no instance. Where the picture
        is one instance, which has no boundary, it is larger than any distance in the picture.

    Reference:
        - Saito and Toriwaki 1994, "New algorithms for Euclidean distance transformation of an
          n-dimensional digitized picture" (the two passes)
        - Huang and Mitchell 1994, "A Euclidean distance transform using grayscale morphology
          decomposition" (parabolas made of small steps)

    Example:

    ```python
    import numpy as np
    from mtl_keras.tasks.distance_transform import instance_distances
    two = np.array([[1, 1, 1, 2, 2, 0]])
    found = instance_distances(two, np.ones_like(two, bool))
    assert found.numpy().tolist() == [[3, 2, 1, 1, 1, 0]]
    ```
    """
    import tensorflow as tf

    instances, inside = tf.convert_to_tensor(instances), tf.convert_to_tensor(inside)
    shape = tf.shape(instances)
    far = tf.cast(2 * tf.reduce_max(shape), "float32")  # more than any diagonal
    # Columns are the rows of the transpose, and rows its columns.
    in_column = _in_rows(tf.transpose(instances), tf.transpose(inside), far)
    nothing = (instances == 0) & inside
    in_column = tf.where(tf.transpose(nothing), 0.0, in_column)

    # Maxima of negative numbers, since there is a pooling by maxima and none by minima.
    def steps(cost: Any, height: Any, _: Any) -> tuple:
        before = height
        for k in range(STEPS):
            pooled = tf.nn.max_pool2d(height, (3, 1), 1, "SAME")
            height = tf.maximum(height, pooled - (cost + 2.0 * k))
        return cost + 2.0 * STEPS, height, tf.reduce_any(height > before)

    height = -tf.square(in_column)[None, :, None, :]
    _, height, _ = tf.while_loop(lambda cost, height, more: more, steps, (1.0, height, True))
    distance = tf.sqrt(tf.transpose(-height[0, :, 0, :]))
    # Other instances of the same row.
    distance = tf.minimum(distance, _in_rows(instances, inside, far))
    return tf.where(instances == 0, 0.0, distance)


def _in_rows(instances: Any, inside: Any, far: Any) -> Any:
    """Distance to the nearest other pixel inside, in the own row; `far` where there is none."""
    import tensorflow as tf

    shape = tf.shape(instances)
    width = shape[1]
    changed = (instances[:, 1:] != instances[:, :-1]) | (inside[:, 1:] != inside[:, :-1])
    edge = tf.ones((shape[0], 1), "bool")
    starts = tf.reshape(tf.concat([edge, changed], 1), [-1])
    run = tf.cumsum(tf.cast(starts, "int32")) - 1
    first = tf.cast(tf.where(starts)[:, 0], "int32")
    after = tf.concat([first[1:], [tf.size(starts)]], 0)
    # Beyond the ends of a row, and of the picture, there is nothing.
    flat = tf.reshape(inside, [-1])
    open_left = (first % width == 0) | ~tf.gather(flat, tf.maximum(first - 1, 0))
    open_right = (after % width == 0) | ~tf.gather(flat, tf.minimum(after, tf.size(flat) - 1))
    place = tf.range(tf.size(starts))
    nowhere = tf.shape(starts)[0] * 2
    left = place - tf.gather(tf.where(open_left, -nowhere, first - 1), run)
    right = tf.gather(tf.where(open_right, 3 * nowhere, after), run) - place
    distance = tf.cast(tf.minimum(left, right), "float32")
    return tf.reshape(tf.minimum(distance, far), shape)
