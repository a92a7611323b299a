"""Greedy suppression, class by class, with NumPy and loops."""

import numpy as np


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0


def greedy(boxes, scores, iou_threshold, score_threshold, most):
    """Returns `(box, score, class)` triples, best first."""
    kept = []
    for c in range(scores.shape[1]):
        mine = []
        for i in np.argsort(-scores[:, c], kind="stable"):
            if scores[i, c] > score_threshold and all(
                overlap(boxes[i], boxes[j]) <= iou_threshold for j in mine
            ):
                mine.append(i)
        kept += [(boxes[i], scores[i, c], c) for i in mine]
    return sorted(kept, key=lambda entry: -entry[1])[:most]
