"""The same two figures with matplotlib and seaborn: `matplotlib_figures.py DIR CAPTURE...`.

What headgrid replaces, written as people write it today, to measure beside it.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns
import torch

mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["font.sans-serif"] = ["Arial", "DejaVu Sans", "Helvetica"]


def grid(heads: int, size: tuple[float, float]):
    figure, axes = plt.subplots(-(-heads // 4), 4, figsize=size, squeeze=False)
    return figure, list(axes.flat)


def draw_heatmap(data: dict, path: Path) -> None:
    maps = data["full_frame_attention"].float().numpy()
    limit = abs(maps).max()
    figure, axes = grid(len(maps), (16, 12))
    for head, (axis, values) in enumerate(zip(axes, maps, strict=False)):
        drawn = axis.imshow(
            values, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower", aspect="auto"
        )
        axis.set_title(f"Head {head}", fontsize=11, fontweight="bold")
        axis.set_xlabel("Key Frame", fontsize=9)
        axis.set_ylabel("Query Frame", fontsize=9)
    figure.colorbar(drawn, ax=axes, label="Attention Logits")
    figure.suptitle(f"Layer {data['layer_index']}: 2D Attention Maps (All Heads)")
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def draw_profiles(data: dict, path: Path) -> None:
    rows = data["last_block_frame_attention"].float().numpy()
    figure, axes = grid(len(rows), (14, 9))
    color = sns.color_palette("colorblind")[0]
    for head, (axis, row) in enumerate(zip(axes, rows, strict=False)):
        axis.bar(range(len(row)), row, width=0.8, alpha=0.85, color=color)
        axis.plot(range(len(row)), row, "o-", color="black", linewidth=1, markersize=2)
        axis.set_title(f"H{head} (sink={row[0] - row[1:-1].mean():.2f})", fontweight="bold")
        axis.grid(visible=True, alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        capture = torch.load(name, weights_only=True)
        draw_heatmap(capture, folder / f"{Path(name).stem}_2d_heatmap.svg")
        draw_profiles(capture, folder / f"{Path(name).stem}_perhead_grid.svg")
