"""The picture of `zoo/report.py`: what sharing gains over what it costs, a panel a set."""

import pathlib

from compare import TASKS, VAL, Network, change, joint, labels_by_set, ratio, together, twins

STYLES = {"hard": ("#2b6cb0", "o"), "cross_stitch": ("#dd6b20", "s"), "soft": ("#2f855a", "^")}
GREY = "#4a5568"
OTHER = (GREY, "D")


def draw(found: dict, out: pathlib.Path) -> None:
    """Draws Δm over parameters relative to twins, a panel a set."""
    from matplotlib.figure import Figure

    main = {d: own for (d, split), own in found.items() if split == VAL and joint(own)}
    if not main:
        return
    short = labels_by_set(found)
    columns = min(2, len(main))
    rows = -(-len(main) // columns)
    figure = Figure(figsize=(8, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels[len(main) :]:
        axes.set_axis_off()
    for axes, (data, networks) in zip(panels, main.items(), strict=False):
        panel(axes, data, networks, short[data])
    figure.savefig(out, dpi=150, metadata={"Software": None})


def panel(axes, data: str, networks: list[Network], short: dict[str, str]) -> None:
    points = []
    for network in joint(networks):
        pair = twins(network, networks)
        changed = change(network, pair)
        if changed is not None:
            x = 100 * ratio(network["parameters"], together(pair)["parameters"])
            points.append((x, changed, network))
    axes.set_title(data, fontsize=11, loc="left")
    axes.axhline(0, color="#718096", linewidth=1)
    axes.plot([100], [0], "*", color="#718096", markersize=10)
    axes.annotate(
        "twins",
        (1, 0),
        (0, -12),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color=GREY,
    )
    # Points of about the same cost stand side by side, so that their intervals can be told apart.
    for group in close(points):
        for place, (x, changed, network) in enumerate(group):
            shift = place - (len(group) - 1) / 2
            side = "right" if shift < 0 else "left"
            point(axes, x + 4 * shift, changed, network, short[network["name"]], side)
    if not points:
        axes.text(0.05, 0.9, "no twins yet", transform=axes.transAxes, fontsize=9, color=GREY)
        axes.set_ylim(-1, 1)
    axes.set_xlabel("parameters, % of both twins", fontsize=9)
    axes.set_ylabel("Δm against twins, %", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.set_xlim(10, max([135, *(x + 35 for x, _, _ in points)]))
    axes.margins(y=0.15)
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


def point(axes, x: float, changed, network: Network, label: str, side: str) -> None:
    colour, marker = STYLES.get(network["sharing"], OTHER)
    marker = "P" if len(network["tasks"]) > len(TASKS) else marker
    low, high = changed.interval or (changed.value, changed.value)
    axes.plot([x, x], [low, high], color=colour, linewidth=1.6, alpha=0.7)
    axes.plot([x], [changed.value], marker, color=colour, markersize=7)
    axes.annotate(
        label,
        (x, changed.value),
        (-8 if side == "right" else 8, 0),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=9,
        color=colour,
    )
