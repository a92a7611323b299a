"""TorchJD and LibMTL in balancing_cost.py. Runs with torch, without Keras.

Both train the network of libmtl_worker.py: ResNet-18, the neck that mtl_keras has between trunk
and heads, and a classifier (mean, one linear layer) a task; with Adam, channels-last tensors and
a thread a core, which is LibMTL at its best in sharing_cost.py.

TorchJD, a training step as its documentation writes it, with aggregators at their defaults:

- parameters: `mtl_backward(losses, features)`, then `jac_to_grad` of the shared parameters
- one by one: the same with `parallel_chunk_size=1`, without `torch.vmap`
- gramian: the same with `optimize_gramian_computation=True`
- autogram: the Gramian at the shared parameters by `autogram.Engine`, then a backward pass of the
  losses with the weights (which weights the heads' gradients too)
- features: `mtl_backward` down to the features and `jac_to_grad` there, then one backward pass
  through the trunk

LibMTL, its own Trainer and weightings, with the arguments of its command line at their defaults:

- parameters: `rep_grad=False`; zeroing gradients keeps them, as with the torch for which LibMTL was
  written (it fails where they are `None`)
- features: `rep_grad=True`

Its IMTL balances losses and gradients; it stands beside our `imtl_g`. `plain` is the sum of the
losses: of TorchJD's network without TorchJD, and LibMTL's EW.
"""

import os
import statistics
import time
from collections.abc import Callable
from importlib import metadata

import torch
from balancing_cost_worker import MEMORY_STEPS, peak_memory, resident, serve
from libmtl_worker import (
    CELoss,
    CpuTrainer,
    NoMetric,
    Repeated,
    architecture,
    head,
    neck,
    resnet18,
)
from torch import nn

CLASSES, WIDTH = 10, 64


def peers(spec: dict, answer: Callable) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    x = torch.randn(spec["batch"], 3, spec["size"], spec["size"])
    x = x.contiguous(memory_format=torch.channels_last)
    names = [f"task{i}" for i in range(spec["tasks"])]
    y = {name: torch.randint(0, CLASSES, (spec["batch"],)) for name in names}
    make = {"TorchJD": torchjd_step, "LibMTL": libmtl_step}[spec["library"]]
    imported = peak_memory()

    def prepare(way: dict) -> tuple[Callable, dict]:
        before = resident()
        run = make(way["method"], way["mode"], x, y)
        run()
        peaks = []
        for _ in range(MEMORY_STEPS):
            if resident() is not None:
                run()
                peaks.append(peak_memory() - before)
        return run, {"memory": statistics.median(peaks) if peaks else None}

    package = {"TorchJD": "torchjd"}.get(spec["library"], spec["library"])
    versions = f"{spec['library']} {metadata.version(package)}, torch {torch.__version__}"
    serve(
        spec,
        answer,
        prepare,
        lambda: {"process": peak_memory() - imported, "versions": versions},
    )


def trunk() -> nn.Module:
    return nn.Sequential(resnet18(), neck(WIDTH))


# === TorchJD ===
def torchjd_step(method: str, mode: str, x: torch.Tensor, y: dict) -> Callable:
    from torchjd import aggregation as a
    from torchjd.autogram import Engine
    from torchjd.autojac import jac_to_grad, mtl_backward

    shared = trunk().to(memory_format=torch.channels_last).train()
    heads = nn.ModuleDict({name: head(WIDTH, CLASSES) for name in y}).train()
    optimizer = torch.optim.Adam([*shared.parameters(), *heads.parameters()], lr=1e-3)
    aggregator = {
        "plain": lambda: None,
        "mgda": a.MGDA,
        "upgrad": a.UPGrad,
        "dual_proj": a.DualProj,
        "cagrad": lambda: a.CAGrad(c=0.4),
        "imtl_g": a.IMTLG,
        "aligned_mtl": a.AlignedMTL,
        "config": a.ConFIG,
        "nash_mtl": lambda: a.NashMTL(n_tasks=len(y)),
        "fairgrad": lambda: a.FairGrad(alpha=2.0),
        "pcgrad": a.PCGrad,
        "gradvac": a.GradVac,
    }[method]()
    engine = Engine(shared, batch_dim=None) if mode == "autogram" else None

    def losses(features: torch.Tensor) -> list:
        return [nn.functional.cross_entropy(heads[name](features), y[name]) for name in y]

    def backward() -> None:
        features = shared(x)
        if aggregator is None:
            sum(losses(features)).backward()
        elif mode == "autogram":
            found = torch.stack(losses(features))
            weights = aggregator.gramian_weighting(engine.compute_gramian(found))
            found.backward(weights)
        elif mode == "features":
            cut = features.detach().requires_grad_()
            seen = cut.view_as(cut)  # It takes features that something has made.
            mtl_backward(losses(seen), features=seen, shared_params=[cut])
            jac_to_grad([cut], aggregator)
            features.backward(cut.grad)
        else:
            chunk = 1 if mode == "one by one" else None
            more = {"optimize_gramian_computation": True} if mode == "gramian" else {}
            mtl_backward(losses(features), features=features, parallel_chunk_size=chunk)
            jac_to_grad(shared.parameters(), aggregator, **more)

    def run() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        backward()
        optimizer.step()
        return time.perf_counter() - started

    return run


# === LibMTL ===
class Hard(architecture.HPS):
    def zero_grad_share_params(self) -> None:
        self.encoder.zero_grad(set_to_none=False)


def libmtl_step(method: str, mode: str, x: torch.Tensor, y: dict) -> Callable:
    from LibMTL import weighting

    kind, arguments = {
        "plain": ("EW", {}),
        "mgda": ("MGDA", {"mgda_gn": "none"}),
        "pcgrad": ("PCGrad", {}),
        "gradvac": ("GradVac", {"beta": 0.5}),
        "cagrad": ("CAGrad", {"calpha": 0.5, "rescale": 1}),
        "imtl_g": ("IMTL", {}),
        "graddrop": ("GradDrop", {"leak": 0.0}),
    }[method]
    task = {"metrics": ["none"], "metrics_fn": NoMetric(), "weight": [1]}
    trainer = CpuTrainer(
        task_dict={name: {**task, "loss_fn": CELoss()} for name in y},
        weighting=getattr(weighting, kind),
        architecture=Hard,
        encoder_class=trunk,
        decoders=nn.ModuleDict({name: head(WIDTH, CLASSES) for name in y}),
        rep_grad=mode == "features",
        multi_input=False,
        optim_param={"optim": "adam", "lr": 1e-3},
        scheduler_param=None,
        weight_args=arguments,
        arch_args={},
    )
    if mode != "parameters":  # LibMTL flattens gradients in the order of contiguous parameters.
        trainer.model.to(memory_format=torch.channels_last)
    ends = []
    trainer.optimizer.register_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    # After each epoch the Trainer tests: here with one image, outside of the time.
    tested = (x[:1], {name: label[:1] for name, label in y.items()})

    def run() -> float:
        """From the question for the batch to the end of the optimizer's step."""
        loader = Repeated((x, y), 1)
        trainer.train(loader, Repeated(tested, 1), epochs=1)
        return ends[-1] - loader.times[0]

    return run
