"""What the files of zoo/results say of networks and their twins, for `zoo/report.py`."""

import collections
import dataclasses
import itertools
import json
import pathlib
import zlib

import numpy as np

from mtl_keras.metrics import delta_m

# The tasks that have twins, with the metric of each that Δm is made of.
TASKS = {"detection": "AP", "segmentation": "mean_iou"}
SHARINGS = ("hard", "cross_stitch", "soft")
VAL = "val"
SETS = ("nuclei", "kvasir", "facades", "vhr10")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network on a split: the result files of its seeds. Numbers are means over seeds."""

    runs: tuple[dict, ...]

    def __getitem__(self, key: str):
        # Most images are a scene of their own.
        return self.runs[0]["images" if key == "scenes" and key not in self.runs[0] else key]

    def balancing(self) -> str:
        """The class of the method that balances tasks, or nothing."""
        return self.runs[0].get("balancing", "").split("(")[0]

    def label(self) -> str:
        """The way to share, tasks beyond the usual two, and what balances them."""
        more = [task for task in self["tasks"] if task not in TASKS]
        more += [self.balancing()]
        return " + ".join(filter(None, [called(self["sharing"]), *more]))

    def metric(self, name: str) -> float | None:
        return self._mean([run["metrics"].get(name) for run in self.runs])

    def minutes(self) -> float | None:
        return self._mean([run.get("training_minutes") for run in self.runs])

    def inference(self, key: str) -> float | None:
        return self._mean([(run.get("inference") or {}).get(key) for run in self.runs])

    def resampled(self, name: str) -> np.ndarray:
        """The metric of each bootstrap resample, NaN where it has no value.

        Images are drawn anew in each, and so are, of several seeds, as many as there are: the same
        ones for all metrics.
        """
        runs = [run["bootstrap"].get(name) for run in self.runs]
        if any(run is None for run in runs) or len(set(map(len, runs))) > 1:
            return np.array([])
        values = np.array(runs, "float64")
        generator = np.random.default_rng([2026, zlib.crc32(self["name"].encode())])
        drawn = generator.integers(len(runs), size=values.shape)
        return np.take_along_axis(values, drawn, axis=0).mean(axis=0)

    def interval(self, name: str) -> tuple[float, float] | None:
        return ends(self.resampled(name))

    @staticmethod
    def _mean(values: list) -> float | None:
        return None if None in values else float(np.mean(values))


@dataclasses.dataclass(frozen=True)
class Change:
    """Δm of a network against its twins, in percent.

    Attributes:
        value: Float, of means over seeds.
        by_task: Dict, task to its change.
        interval: Ends of the interval over images and seeds, or `None`.
        intervals: Dict, task to the interval of its change.
        spread: Least and largest Δm of single seeds, or `None` where all have one seed.
        left_out: Integer, resamples in which a metric has no value.
    """

    value: float
    by_task: dict[str, float]
    interval: tuple[float, float] | None
    intervals: dict[str, tuple[float, float] | None]
    spread: tuple[float, float] | None
    left_out: int


def ends(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % percentile interval of bootstrap values."""
    values = values[np.isfinite(values)]
    return tuple(map(float, np.quantile(values, [0.025, 0.975]))) if len(values) else None


def read(folder: pathlib.Path) -> dict[tuple[str, str], list[Network]]:
    """The networks of all result files by (data, split): joint ones first, then twins."""
    runs = collections.defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text("utf-8"))
        runs[run["data"], run["split"], run["name"]].append(run)
    found = collections.defaultdict(list)
    for (data, split, name), own in runs.items():
        own.sort(key=lambda run: run["seed"])
        seeds = [run["seed"] for run in own]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{name} on {split!r} of {data} has two files of one seed: {seeds}")
        for key in ("images", "epochs", "tasks", "parameters", "image_size"):
            if any(run[key] != own[0][key] for run in own):
                raise ValueError(
                    f"seeds of {name} on {split!r} of {data} differ in {key}: "
                    f"{[run[key] for run in own]}"
                )
        found[data, split].append(Network(tuple(own)))
    order = sorted(found, key=lambda key: (rank(key[0], SETS), *key))
    return {key: sorted(found[key], key=place) for key in order}


def rank(name: str, known: tuple[str, ...]) -> int:
    return known.index(name) if name in known else len(known)


def place(about: Network | dict) -> tuple:
    """Order of networks and of cards: by set, one task last, then trunk, way to share and name."""
    data, trunk, tasks = about["data"], about["trunk"], about["tasks"]
    order = rank(about["sharing"], SHARINGS)
    sets = (rank(data, SETS), data)
    return (*sets, len(tasks) == 1, trunk, order, len(tasks), tasks, about["name"])


def joint(networks: list[Network]) -> list[Network]:
    return [network for network in networks if len(network["tasks"]) > 1]


def twins(network: Network, networks: list[Network]) -> dict[str, Network | None]:
    """The network of one task of each task that has such, `None` where it is missing."""
    found = {}
    for task in (task for task in TASKS if task in network["tasks"]):
        alone = [
            other
            for other in networks
            if other["tasks"] == [task] and other["trunk"] == network["trunk"]
        ]
        if len(alone) > 1:
            raise ValueError(
                f"{network['name']} has two twins of {task}: {[one['name'] for one in alone]}"
            )
        found[task] = alone[0] if alone else None
    return found


def change(network: Network, pair: dict[str, Network | None]) -> Change | None:
    """Δm against twins; `None` where a twin or a metric is missing."""
    if not pair or None in pair.values():
        return None
    names = {task: f"{task}_{TASKS[task]}" for task in pair}
    for task, twin in pair.items():
        for units in ("images", "scenes"):
            if twin[units] != network[units]:
                raise ValueError(
                    f"{network['name']} was measured on {network[units]} {units} and its twin "
                    f"{twin['name']}, of {task}, on {twin[units]}: measure both on all"
                )

    def of(ours: dict, theirs: dict):
        usable = all(v is not None and np.isfinite(v) for v in (*ours.values(), *theirs.values()))
        if not usable or min(theirs.values()) <= 0:
            return None
        return delta_m(*({t: {TASKS[t]: side[t]} for t in pair} for side in (ours, theirs)))

    whole = of(
        {task: network.metric(name) for task, name in names.items()},
        {task: pair[task].metric(name) for task, name in names.items()},
    )
    if whole is None:
        return None
    ours = {task: network.resampled(name) for task, name in names.items()}
    theirs = {task: pair[task].resampled(name) for task, name in names.items()}
    counts = {len(values) for side in (ours, theirs) for values in side.values()}
    resampled = [
        of({t: v[i] for t, v in ours.items()}, {t: v[i] for t, v in theirs.items()})
        for i in range(counts.pop() if len(counts) == 1 else 0)
    ]
    single = [
        of(
            {task: run["metrics"][name] for task, name in names.items()},
            {task: twin["metrics"][names[task]] for task, twin in zip(pair, others, strict=True)},
        )
        for run, *others in itertools.product(network.runs, *(twin.runs for twin in pair.values()))
    ]
    values = [one.value for one in single if one is not None]
    usable = [one for one in resampled if one is not None]
    return Change(
        value=whole.value,
        by_task=whole.by_task,
        interval=ends(np.array([one.value for one in usable])),
        intervals={task: ends(np.array([one.by_task[task] for one in usable])) for task in pair},
        spread=(min(values), max(values)) if len(values) > 1 else None,
        left_out=len(resampled) - len(usable),
    )


def together(pair: dict[str, Network | None]) -> dict[str, float | None]:
    """What twins cost that run in turn: sums, and the larger memory."""
    if not pair or None in pair.values():
        return dict.fromkeys(("parameters", "latency_ms", "memory_mb", "minutes", "cores"))
    both = list(pair.values())
    columns = {
        "parameters": [one["parameters"] for one in both],
        "latency_ms": [one.inference("latency_ms") for one in both],
        "minutes": [one.minutes() for one in both],
    }
    found = {key: None if None in values else sum(values) for key, values in columns.items()}
    memory = [one.inference("memory_mb") for one in both]
    cores = {one.inference("cores") for one in both}
    return {
        **found,
        "memory_mb": None if None in memory else max(memory),
        "cores": cores.pop() if len(cores) == 1 else None,
    }


def ratio(value: float | None, whole: float | None) -> float | None:
    return None if value is None or not whole else value / whole


def latency_ratio(network: Network, pair: dict[str, Network | None]) -> float | None:
    """Latency relative to both twins in turn, where all were measured with as many cores."""
    both = together(pair)
    if both["cores"] is None or both["cores"] != network.inference("cores"):
        return None
    return ratio(network.inference("latency_ms"), both["latency_ms"])


def called(sharing: str) -> str:
    return sharing.replace("_", "-")


def labels(networks: list[Network]) -> dict[str, str]:
    """Short names: the label, with the trunk where it is another than most have."""
    trunks = collections.Counter(sorted(network["trunk"] for network in networks))
    found = {}
    for network in networks:
        other = network["trunk"] != trunks.most_common(1)[0][0]
        found[network["name"]] = ", ".join([network.label()] + [network["trunk"]] * other)
    count = collections.Counter(found.values())
    return {name: name if count[label] > 1 else label for name, label in found.items()}


def labels_by_set(found: dict) -> dict[str, dict[str, str]]:
    return {data: labels(joint(own)) for (data, split), own in found.items() if split == VAL}
