"""The process of sharing_cost.py that measures LibMTL. Runs with torch and LibMTL, without Keras.

LibMTL's own architectures, weighting (EW), losses and training loop (Trainer.train) run as they
are installed, on ResNet-18, with Adam. Around them stands here what a user of LibMTL writes:

- Tasks: two classifiers (mean of the last map, one linear layer), each behind the neck that
  mtl_keras has between trunk and heads (1 x 1 and 3 x 3 convolution, BatchNorm, ReLU). HPS shares
  the neck, as hard sharing of mtl_keras does: there it is the end of the encoder.
- The loader gives one batch again and again, and notes the time at which each step asks for it.
- Metrics measure nothing, since a training step of mtl_keras measures nothing either.
- The Trainer names the GPU in its code; a subclass says that the device is the CPU.
- Modules that LibMTL imports and this comparison never calls are replaced where they are missing:
  torchvision.models.utils (pretrained weights) and scipy.optimize (CAGrad).

"At its best" adds channels-last tensors, a thread a core, and inference mode.
"""

import importlib.util
import json
import os
import runpy
import statistics
import sys
import time
import types
from importlib import metadata

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from torch import nn

WARM_UP = 2


def stand_in(name: str, attribute: str) -> None:
    """Puts a module in place of a missing one, whose only function fails when it is called."""
    if there(name):
        return

    def missing(*args, **kwargs):
        raise ImportError(f"{name} is not installed")

    module = types.ModuleType(name)
    setattr(module, attribute, missing)
    sys.modules[name] = module
    # The packages above it, from the innermost: what is installed stays.
    while "." in name:
        name, _, child = name.rpartition(".")
        if name not in sys.modules and not there(name):
            sys.modules[name] = types.ModuleType(name)
        if name in sys.modules:
            setattr(sys.modules[name], child, module)
        module = sys.modules.get(name)
        if module is None:
            return


def there(name: str) -> bool:
    """Whether a module can be imported; `find_spec` fails where a package above it is missing."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # ValueError: a stand-in has no spec.
        return False


stand_in("torchvision.models.utils", "load_state_dict_from_url")
stand_in("scipy.optimize", "minimize")

from LibMTL import architecture  # noqa: E402
from LibMTL.loss import CELoss  # noqa: E402
from LibMTL.metrics import AbsMetric  # noqa: E402
from LibMTL.model import resnet18  # noqa: E402
from LibMTL.trainer import Trainer  # noqa: E402
from LibMTL.weighting import EW  # noqa: E402

ARCHITECTURES = {"hard": "HPS", "cross_stitch": "Cross_stitch", "mmoe": "MMoE", "mtan": "MTAN"}


class CpuTrainer(Trainer):
    device = property(lambda self: torch.device("cpu"), lambda self, value: None)


class NoMetric(AbsMetric):
    def update_fun(self, pred, gt):
        pass

    def score_fun(self):
        return [1.0]


class Repeated:
    """A loader of one batch, and its iterator, as the Trainer calls it."""

    def __init__(self, batch, length):
        self.batch, self.length, self.times = batch, length, []

    def __len__(self):
        return self.length

    def __iter__(self):
        return self

    def __next__(self):
        self.times.append(time.perf_counter())
        x, y = self.batch
        return x, dict(y)

    next = __next__  # LibMTL calls it as iterators of older torch were called.


def neck(width):
    return nn.Sequential(
        nn.Conv2d(512, width, 1),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def head(width, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def measure(spec: dict) -> dict:
    peak_memory = runpy.run_path(spec["memory"])["peak_memory"]
    imported = peak_memory()
    torch.manual_seed(0)
    best, hard = spec["best"], spec["way"] == "hard"
    if best:
        torch.set_num_threads(spec["cores"])
    names, width, classes = ("a", "b"), spec["neck_channels"], spec["classes"]
    size, batch = spec["size"], spec["batch"]
    x = torch.randn(batch, 3, size, size)
    if best:
        x = x.contiguous(memory_format=torch.channels_last)
    y = {name: torch.randint(0, classes, (batch,)) for name in names}

    def decoder():
        own = [] if hard else [neck(width)]
        return nn.Sequential(*own, head(width, classes))

    def encoder():
        return nn.Sequential(resnet18(), neck(width)) if hard else resnet18()

    arch_args = {}
    if spec["way"] == "mmoe":
        arch_args = {"img_size": [3, size, size], "num_experts": [spec["num_experts"]]}
    trainer = CpuTrainer(
        task_dict={
            name: {
                "metrics": ["none"],
                "metrics_fn": NoMetric(),
                "loss_fn": CELoss(),
                "weight": [1],
            }
            for name in names
        },
        weighting=EW,
        architecture=getattr(architecture, ARCHITECTURES[spec["way"]]),
        encoder_class=encoder,
        decoders=nn.ModuleDict({name: decoder() for name in names}),
        rep_grad=False,
        multi_input=False,
        optim_param={"optim": "adam", "lr": 1e-3},
        scheduler_param=None,
        weight_args={},
        arch_args=arch_args,
    )
    model = trainer.model
    if best:
        model.to(memory_format=torch.channels_last)

    model.eval()
    times = []
    with torch.inference_mode() if best else torch.no_grad():
        for _ in range(WARM_UP + spec["calls"]):
            started = time.perf_counter()
            {name: output.numpy() for name, output in model(x[:1]).items()}
            times.append(time.perf_counter() - started)
    latency, inference = statistics.median(times[WARM_UP:]), peak_memory()

    # One batch more: the time of a step ends where the next one begins.
    loader = Repeated((x, y), WARM_UP + spec["steps"] + 1)
    trainer.train(loader, Repeated((x, y), 1), epochs=1)
    steps = [after - before for before, after in zip(loader.times, loader.times[1:], strict=False)]
    return {
        "parameters": sum(p.numel() for p in model.parameters())
        + sum(b.numel() for n, b in model.named_buffers() if "running" in n),
        "latency": latency,
        "step": statistics.median(steps[WARM_UP:]),
        "inference_memory": inference - imported,
        "training_memory": peak_memory() - imported,
        "imported_memory": imported,
        "versions": f"LibMTL {metadata.version('LibMTL')}, torch {torch.__version__}",
    }


if __name__ == "__main__":
    print("\n" + json.dumps(measure(json.load(sys.stdin))))
