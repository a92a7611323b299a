"""The parts of a published model's name."""

import mtl_keras as mtl

TWINS = ("detection", "segmentation")


def parts(name):
    """Trunk, way to share or single task, and data of `lite_hard_nuclei_distance`."""
    ways = [way for way in (*mtl.sharing.names(), *TWINS) if f"_{way}_" in name]
    trunk, rest = name.split(f"_{max(ways, key=len)}_")
    (data,) = [data for data in mtl.data.names() if f"{rest}_".startswith(f"{data}_")]
    return trunk, max(ways, key=len), data
