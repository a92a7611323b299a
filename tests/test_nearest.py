"""What is offered for a name that does not exist."""

import pytest

from mtl_keras.nearest import did_you_mean

KNOWN = ["lite0_hard_kvasir", "lite0_hard_nuclei", "lite0_soft_kvasir"]


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("lite0_hard_kvasri", "Did you mean 'lite0_hard_kvasir' or"),  # misspelt
        ("hard_nuclei", "Did you mean 'lite0_hard_nuclei'?"),  # a part
        ("*kvasir_soft*", "Did you mean 'lite0_soft_kvasir'?"),  # its words, in another order
        ("resnet_nuclei_big_one", "Did you mean 'lite0_hard_nuclei'?"),  # one of its words
        ("xyz", f"There are {KNOWN}."),
        ("", f"There are {KNOWN}."),
    ],
)
def test_near_names_are_offered(name, offered):
    assert did_you_mean(name, KNOWN).startswith(offered)
