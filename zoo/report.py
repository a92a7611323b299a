"""Writes zoo/RESULTS.md and its picture from the files of zoo/results, and from nothing else.

Command: python zoo/report.py          (--check: write nothing, exit with 1 if the page is old)

The files come of `zoo/publish.py` and `zoo/evaluate.py NAME --write`. What is missing among them is
said on the page. The page compares networks of several tasks with their twins: networks of one
task each, of the same trunk, on the same data.
"""

import argparse
import collections
import itertools
import pathlib
import sys
import textwrap

from compare import (
    SHARINGS,
    VAL,
    Change,
    Network,
    called,
    change,
    joint,
    labels,
    labels_by_set,
    latency_ratio,
    ratio,
    read,
    together,
    twins,
)
from report_plot import draw
from tables import NO_BREAK, in_words, place_of

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "zoo" / "results"
PAGE, PICTURE = "RESULTS.md", "results.png"
# What the zoo set out to reach on `val`.
TARGETS = {
    "nuclei": {"detection_AP50": 0.88, "segmentation_iou_nucleus": 0.90},
    "kvasir": {"detection_AP50": 0.85, "segmentation_dice_polyp": 0.88},
    "facades": {"detection_AP50": 0.50, "segmentation_mean_iou": 0.60},
    "vhr10": {"detection_AP50": 0.80},
}
# Published numbers on the same split: (data, split) to name, metrics and source.
LITERATURE = {
    ("kvasir", "test"): (
        "ColonSegNet",
        {"segmentation_dice_polyp": 0.8206},
        "ColonSegNet: Jha et al. 2021, Real-Time Polyp "
        "Detection, Localization and Segmentation in Colonoscopy Using Deep Learning, IEEE Access "
        "9, 40496–40510. Its Dice is as that paper computes it, which may differ in how it is "
        "averaged over pictures. Its average precision, 0.80, is not in the table: the abstract "
        "does not say at which overlaps of boxes, so that it compares neither with box AP nor with "
        "AP50.",
    ),
}


# === Writing ===
def number(value: float | None, form: str = ".3f", unit: str = "") -> str:
    """A number with a true minus, which no line break parts from its unit."""
    if value is None:
        return "–"
    return f"{value:{form}}{unit}".replace("-", "−").replace(" ", NO_BREAK)


def bounds(interval: tuple[float, float] | None, form: str) -> str:
    if interval is None:
        return ""
    return f" [{f',{NO_BREAK}'.join(number(end, form) for end in interval)}]"


def table(rows: list[dict[str, str]], left: tuple[str, ...] = ()) -> str:
    """A table with the columns of the rows, but for those that are empty in all of them."""
    columns = dict.fromkeys(itertools.chain.from_iterable(rows))
    columns = [c for c in columns if any(row.get(c, "–") != "–" for row in rows)]
    lines = [columns, ["---" if column in left else "---:" for column in columns]]
    lines += [[row.get(column, "–") for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def classes(networks: list[Network]) -> list[str]:
    """Classes of masks without background."""
    start = "segmentation_iou_"
    names = {m.removeprefix(start) for n in networks for m in n["metrics"] if m.startswith(start)}
    return sorted(names - {"background"})


def metric_cells(network: Network, only: str | None) -> dict[str, str]:
    """The metrics of a row; those of the class too where there is only one."""
    names = {"box AP": "detection_AP", "AP50": "detection_AP50"}
    names["mean IoU"] = "segmentation_mean_iou"
    if only is not None:
        names[f"IoU of {only}"] = f"segmentation_iou_{only}"
        names[f"Dice of {only}"] = f"segmentation_dice_{only}"
        names["Dice by picture"] = f"segmentation_image_dice_{only}"
    names["PQ"] = "instances_PQ"
    cells = {title: number(network.metric(name)) for title, name in names.items()}
    return {**cells, "distance MAE": number(network.metric("distance_mae"))}


def change_cell(network: Network, pair: dict[str, Network | None]) -> str:
    if missing := [task for task, twin in pair.items() if twin is None]:
        return "no twins yet" if len(missing) == len(pair) else f"no twin of {missing[0]} yet"
    found = change(network, pair)
    if found is None:
        return "–"
    cell = number(found.value, "+.1f") + bounds(found.interval, "+.1f")
    if found.spread is not None:
        low, high = (number(end, "+.1f") for end in found.spread)
        cell += f"; seeds {low} to {high}"
    return cell


def task_cell(found: Change | None, task: str) -> str:
    if found is None or task not in found.by_task:
        return "–"
    return number(found.by_task[task], "+.1f") + bounds(found.intervals[task], "+.1f")


def trained(network: Network) -> str:
    if network.minutes() is None:
        return "–"
    places = dict.fromkeys(place_of(run["trained_on"]) for run in network.runs)
    return f"{network.minutes():.0f} min, {' and '.join(places)}"


DELTA = "Δm, %"


def set_tables(networks: list[Network]) -> str:
    """What networks reach and what they cost."""
    names = classes(networks)
    only = names[0] if len(names) == 1 else None
    short = labels(joint(networks))
    reached, costs, pairs = [], [], {}
    for network in networks:
        row = {"model": f"`{network['name']}`"}
        if len(network["tasks"]) > 1:
            pair = twins(network, networks)
            row[DELTA] = change_cell(network, pair)
            pairs[network["trunk"]] = max(pair, pairs.get(network["trunk"], {}), key=len)
        reached.append({**row, **metric_cells(network, only), "seeds": str(len(network.runs))})
        several = len({one["trunk"] for one in networks}) > 1
        alone = f"{network['tasks'][0]} alone" + f", {network['trunk']}" * several
        costs.append(
            {
                "model": short.get(network["name"], alone),
                "parameters": number(network["parameters"] / 1e6, ".2f", " M"),
                "latency": number(network.inference("latency_ms"), ".0f", " ms"),
                "memory": number(network.inference("memory_mb"), ".0f", " MB"),
                "training": trained(network),
            }
        )
    for trunk, pair in pairs.items():
        both = together(pair)
        if both["parameters"] is not None and len(pair) > 1:
            of = f", {trunk}" if len(pairs) > 1 else ""
            costs.append(
                {
                    "model": f"both twins in turn{of}",
                    "parameters": number(both["parameters"] / 1e6, ".2f", " M"),
                    "latency": number(both["latency_ms"], ".0f", " ms"),
                    "memory": number(both["memory_mb"], ".0f", " MB"),
                    "training": number(both["minutes"], ".0f", " min"),
                }
            )
    left = ("model", DELTA, "training")
    return f"{table(reached, left)}\n\n{table(costs, left)}"


def notes(networks: list[Network]) -> list[str]:
    """Where a comparison is not between equals, or something is left out."""
    lines = []
    there = {network["sharing"] for network in joint(networks)}
    if missing := [called(sharing) for sharing in SHARINGS if sharing not in there]:
        lines.append(f"- Not trained on this set: {', '.join(missing)}.")
    if any(network.metric("distance_mae") is not None for network in networks):
        lines.append("- Errors of distances are relative to the largest one in each object.")
    for network in joint(networks):
        pair = twins(network, networks)
        for task, twin in pair.items():
            lines += [
                f"- `{network['name']}` and its twin of {task} differ in {title}: "
                f"{network[key]} against {twin[key]}."
                for key, title in (("epochs", "epochs"), ("image_size", "the size of their input"))
                if twin is not None and twin[key] != network[key]
            ]
        found = change(network, pair)
        if found is not None and found.left_out:
            lines.append(
                f"- `{network['name']}`: {found.left_out} resamples, in which a metric has no "
                "value, are not in the interval."
            )
        if found is not None and found.interval is None:
            lines.append(f"- `{network['name']}`: the resamples of it and its twins do not pair.")
        if alone := [task for task in network["tasks"] if task not in pair]:
            lines.append(
                f"- `{network['name']}`: there is no twin of {', '.join(alone)}. Δm is that of "
                f"{' and '.join(pair)}; the cost is that of all its tasks."
            )
    return lines


def summary(found: dict) -> str:
    rows = []
    short = labels_by_set(found)
    for (data, split), networks in found.items():
        for network in joint(networks) if split == VAL else ():
            pair = twins(network, networks)
            changed = change(network, pair)
            rows.append(
                {
                    "data": data,
                    "sharing": short[data][network["name"]],
                    DELTA: change_cell(network, pair),
                    "box AP, %": task_cell(changed, "detection"),
                    "mean IoU, %": task_cell(changed, "segmentation"),
                    "parameters": number(
                        ratio(network["parameters"], together(pair)["parameters"]), ".0%"
                    ),
                    "latency": number(latency_ratio(network, pair), ".0%"),
                    "seeds (of twins)": f"{len(network.runs)} ("
                    + ", ".join(str(len(one.runs)) if one else "–" for one in pair.values())
                    + ")",
                }
            )
    return table(rows, left=("data", "sharing", DELTA, "box AP, %", "mean IoU, %"))


def best(networks: list[Network], targets: dict[str, float]) -> Network | None:
    """The joint network that meets most targets, of equals that with the largest margins."""

    def merit(network: Network) -> tuple[int, float]:
        margins = [network.metric(name) - target for name, target in targets.items()]
        return sum(margin >= 0 for margin in margins), sum(margins)

    whole = [n for n in joint(networks) if all(n.metric(m) is not None for m in targets)]
    return max(whole, key=merit, default=None)


def targets_table(found: dict) -> str:
    rows = []
    for data, targets in TARGETS.items():
        network = best(found.get((data, VAL), []), targets)
        for name, target in targets.items():
            row = {"data": data, "metric": in_words(name), "target": f"{target:.2f}"}
            if network is None:
                rows.append({**row, "verdict": "not measured yet"})
                continue
            value = network.metric(name)
            rows.append(
                row
                | {
                    "reached": number(value, ".4f") + bounds(network.interval(name), ".3f"),
                    "verdict": "met" if value >= target else "missed",
                    "model": f"`{network['name']}`",
                }
            )
    return table(rows, left=("data", "metric", "verdict", "model"))


def split_table(key: tuple[str, str], networks: list[Network]) -> str:
    """The table of another split, with published numbers beside ours."""
    names = classes(networks)
    only = names[0] if len(names) == 1 else None
    rows = []
    for network in networks:
        row = {"model": f"`{network['name']}`", **metric_cells(network, only)}
        pair = twins(network, networks) if len(network["tasks"]) > 1 else {}
        if pair and None not in pair.values():
            row[DELTA] = change_cell(network, pair)
        rows.append({**row, "images": str(network["images"]), "seeds": str(len(network.runs))})
    text = ""
    if key in LITERATURE:
        name, metrics, source = LITERATURE[key]
        own = Network(({"metrics": metrics},))
        rows.append({"model": name, **metric_cells(own, only)})
        text = f"\n\n{source}"
    return table(rows, left=("model", DELTA)) + text


def preface(found: dict) -> str:
    networks = [n for (_, split), own in found.items() if split == VAL for n in own]
    seeds = collections.Counter(len(network.runs) for network in networks)
    said = [
        f"{count} {'has' if count == 1 else 'have'} {many} seed{'s' * (many > 1)}"
        for many, count in sorted(seeds.items())
    ]
    resamples = {len(v) for n in networks for run in n.runs for v in run["bootstrap"].values()}
    most = " or ".join(map(str, sorted(resamples))) or "no"
    costs = [run["inference"] for n in networks for run in n.runs if run.get("inference")]
    paragraphs = [
        "Each network of several tasks is compared with its *twins*: networks of one task each, "
        "with the same trunk and heads, trained and measured on the same data. Δm is the mean over "
        "tasks of the change against the twin, in percent, of box AP for detection and of mean IoU "
        "over classes, background among them, for segmentation (`mtl_keras.metrics.delta_m`); more "
        "is better. With one metric a task, the other convention, in which less is better, differs "
        "in its sign alone.",
        f"Brackets hold 95 % percentile intervals of {most} bootstrap resamples of the "
        f"validation's images{parted(networks)}. They are paired: each resample holds the same "
        "images for a network and its twins. Of "
        f"{len(networks)} networks, {', '.join(said)}. Of several seeds, metrics are means, "
        "resamples draw as many seeds as there are, with replacement, for a network and its twins, "
        'and "seeds" gives the least and the largest Δm of single trainings, over all pairings. '
        "Where there is one seed, an interval knows nothing of the luck of a training, which can "
        "be all of a small Δm.",
        "The score from which on boxes are shown is the best one on these images, so that PQ, "
        "which looks at what is shown, is a little too high; so is what the best of several "
        "networks reaches under *Targets*. Results on `test` owe nothing to a choice.",
        machine(costs),
    ]
    return "\n\n".join(textwrap.fill(text, 100, break_on_hyphens=False) for text in paragraphs)


def parted(networks: list[Network]) -> str:
    """The sets of which images are parts of photographs, which are drawn whole."""
    counts = {n["data"]: (n["scenes"], n["images"]) for n in networks if n["scenes"] < n["images"]}
    said = [
        f", on {data} of the {scenes} photographs of which its {images} images are parts"
        for data, (scenes, images) in counts.items()
    ]
    return "".join(said)


def over(networks: list[Network]) -> str:
    """What intervals look at."""
    several = any(len(network.runs) > 1 for network in networks)
    if several:
        return "over images and, where there are several, seeds"
    return "over images alone (one seed of each)"


def machine(costs: list[dict]) -> str:
    if not costs:
        return "Latency and memory were not measured yet."
    cores = " or ".join(map(str, sorted({cost["cores"] for cost in costs})))
    loads = sorted({cost["load_average"] for cost in costs})
    load = f"was {loads[0]}" if len(loads) == 1 else f"was between {loads[0]} and {loads[-1]}"
    busy = (
        " **It was busy with other work: latencies are too high, and their ratios are rough.**"
        if any(cost["load_average"] >= cost["cores"] for cost in costs)
        else ""
    )
    return (
        "Latency is that of the network alone, from one picture of its input size to raw outputs, "
        f"in a process of its own on a machine with {cores} CPU cores, without an accelerator; "
        "memory is what the process takes beyond its imports. Minutes of training are those of a "
        "clock on the wall, while other trainings may have run on other cores. The load average of "
        f"the machine before a measurement {load}.{busy} "
        "Both twins in turn take the sum of their latencies and parameters and the larger of their "
        "memories."
    )


def page(found: dict) -> str:
    """The text of RESULTS.md."""
    parts = [
        "# Results of the zoo",
        "Written by `python zoo/report.py` from the files of `zoo/results`: do not edit it.",
        preface(found),
    ]
    main = {data: own for (data, split), own in found.items() if split == VAL}
    networks = list(itertools.chain.from_iterable(main.values()))
    if any(map(joint, main.values())):
        parts += [
            "## Summary",
            f"Changes against twins, with intervals {over(networks)}; parameters and latency "
            "relative to both twins in turn.",
            summary(found),
            f"![Δm over parameters and latency by set]({PICTURE})",
            f"*Δm against twins, which the star is, with its interval {over(networks)}, over what "
            "a network costs relative to both twins in turn. Points of about the same cost stand "
            "side by side, a little beside their place.*",
        ]
    parts += ["## Targets", targets_table(found)]
    for data, networks in main.items():
        parts += [f"## {data}", f"{networks[0]['images']} images of `{VAL}`.", set_tables(networks)]
        parts += ["\n".join(lines)] if (lines := notes(networks)) else []
    for (data, split), networks in found.items():
        if split != VAL:
            parts += [f"## {data}, `{split}`", split_table((data, split), networks)]
    return "\n\n".join(parts) + "\n"


# === Program ===
def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder to read")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "zoo", help="folder to write to")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args(given)
    found = read(arguments.results)
    if not found:
        parser.error(
            f"there are no result files in {arguments.results}: zoo/publish.py and "
            "zoo/evaluate.py NAME --write make them"
        )
    text = page(found)
    path = arguments.out / PAGE
    if arguments.check:
        if not path.is_file() or path.read_text("utf-8") != text:
            sys.exit(f"{PAGE} is not up to date: run python zoo/report.py")
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    draw(found, arguments.out / PICTURE)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
