"""The picture of `zoo/report.py`: what sharing gains over what it costs, a row a set."""

import pathlib

from compare import (
    TASKS,
    VAL,
    Change,
    Network,
    change,
    joint,
    labels_by_set,
    latency_ratio,
    ratio,
    together,
    twins,
)

STYLES = {"hard": ("#2b6cb0", "o"), "cross_stitch": ("#dd6b20", "s"), "soft": ("#2f855a", "^")}
GREY = "#4a5568"
OTHER = (GREY, "D")


COSTS = ("parameters", "latency")


def draw(found: dict, out: pathlib.Path) -> None:
    """Draws Δm over what networks cost relative to twins: a row a set, a column a cost."""
    from matplotlib.figure import Figure

    main = {d: own for (d, split), own in found.items() if split == VAL and joint(own)}
    changed = {data: changes(own) for data, own in main.items()}
    main = {data: own for data, own in main.items() if changed[data]}
    if not main:
        return
    short = labels_by_set(found)
    costs = [cost for own in changed.values() for *_, each in own for cost in each.values()]
    right = max([120.0, *(100 * cost + 10 for cost in costs if cost is not None)])
    figure = Figure(figsize=(8, 2.3 * len(main)), layout="constrained")
    panels = figure.subplots(len(main), len(COSTS), squeeze=False, sharex=True, sharey=True)
    for (first, *others), data in zip(panels, main, strict=True):
        first.set_title(data, fontsize=11, loc="left")
        first.set_ylabel("Δm, %", fontsize=9)
        for axes, cost in zip((first, *others), COSTS, strict=True):
            panel(axes, changed[data], cost, short[data])
    panels[0, 0].set_xlim(0, right)  # Of all panels.
    for axes, cost in zip(panels[-1], COSTS, strict=True):
        axes.set_xlabel(f"{cost}, % of both twins in turn", fontsize=9)
    named = {}
    for axes in panels.flat:
        handles, names = axes.get_legend_handles_labels()
        named = named | dict(zip(names, handles, strict=True))
    figure.legend(
        named.values(), named, loc="outside upper center", ncols=5, frameon=False, fontsize=9
    )
    figure.savefig(out, dpi=150, metadata={"Software": None})


def changes(networks: list[Network]) -> list[tuple[Network, Change, dict[str, float | None]]]:
    """The networks that have twins, with Δm and costs relative to those."""
    found = []
    for network in joint(networks):
        pair = twins(network, networks)
        if (changed := change(network, pair)) is not None:
            costs = {
                "parameters": ratio(network["parameters"], together(pair)["parameters"]),
                "latency": latency_ratio(network, pair),
            }
            found.append((network, changed, costs))
    return found


def panel(axes, networks: list[tuple], cost: str, short: dict[str, str]) -> None:
    axes.axhline(0, color="#718096", linewidth=1)
    axes.plot([100], [0], "*", color=GREY, markersize=10, label="both twins in turn")
    points = [
        (100 * costs[cost], changed, network)
        for network, changed, costs in networks
        if costs[cost] is not None
    ]
    # Points of about the same cost stand side by side, so that their intervals can be told apart.
    for group in close(points):
        for place, (x, changed, network) in enumerate(group):
            shift = place - (len(group) - 1) / 2
            point(axes, x + 6 * shift, changed, network, short[network["name"]])
    axes.tick_params(labelsize=9)
    axes.margins(y=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def close(points: list[tuple], distance: float = 3.0) -> list[list[tuple]]:
    """Points in groups of about the same cost."""
    groups: list[list[tuple]] = []
    for one in sorted(points, key=lambda point: point[0]):
        if groups and one[0] - groups[-1][0][0] < distance:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def point(axes, x: float, changed: Change, network: Network, label: str) -> None:
    colour, marker = STYLES.get(network["sharing"], OTHER)
    marker = "P" if len(network["tasks"]) > len(TASKS) else marker
    marker = "D" if network.balancing() else marker
    low, high = changed.interval or (changed.value, changed.value)
    axes.plot([x, x], [low, high], color=colour, linewidth=1.6, alpha=0.7)
    # Of another trunk than most of the set.
    inside = "white" if label.endswith(f", {network['trunk']}") else colour
    axes.plot(
        [x], [changed.value], marker, color=colour, mfc=inside, markersize=7, label=label, mew=1.6
    )
