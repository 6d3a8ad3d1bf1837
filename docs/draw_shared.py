"""Draws docs/shared.png: a group row by row, the same group packed, and who sees whom in it."""

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402
from matplotlib.colors import ListedColormap, to_rgb  # noqa: E402

from videor1_trl.sharing.attention import visible


VIDEO, TEXT, COMPLETIONS = "#9aa5b1", "#52606d", ["#2a6fdb", "#e07a1f", "#2f9e62", "#a14fc0"]
LENGTHS = [90, 130, 70, 110]
VIDEO_LENGTH, TEXT_LENGTH = 320, 60


def bars(axes, y, parts):
    start = 0
    for length, colour in parts:
        axes.barh(y, length, left=start, height=0.62, color=colour, edgecolor="white", linewidth=1.2)
        start += length
    return start


def draw_rows(axes):
    prompt = [(VIDEO_LENGTH, VIDEO), (TEXT_LENGTH, TEXT)]
    for row, (length, colour) in enumerate(zip(LENGTHS, COMPLETIONS, strict=True)):
        bars(axes, -row, [*prompt, (length, colour)])
    end = bars(axes, -5.4, [*prompt, *zip(LENGTHS, COMPLETIONS, strict=True)])
    label = {"fontsize": 10, "ha": "left", "va": "bottom"}
    axes.text(0, 0.5, "row by row: video and question once per completion", **label)
    axes.text(0, -4.9, "shared: once, completions behind each other", **label)
    for x, length, text in ((0, VIDEO_LENGTH, "video"), (VIDEO_LENGTH, TEXT_LENGTH, "question")):
        axes.text(x + length / 2, -6.0, text, ha="center", va="center", fontsize=9)
    axes.text((VIDEO_LENGTH + TEXT_LENGTH + end) / 2, -6.0, "completions 1 to 4", ha="center", va="center", fontsize=9)
    axes.set_ylim(-6.4, 1.1)
    axes.set_xlim(0, end + 5)
    axes.axis("off")


def draw_mask(axes):
    sizes = [VIDEO_LENGTH + TEXT_LENGTH, *LENGTHS]
    cells = [max(1, size // 10) for size in sizes]
    parts = torch.tensor([part for part, size in enumerate(cells) for _ in range(size)])
    seen = visible(torch.stack([torch.zeros_like(parts), parts])[None, None])[0, 0]
    colours = ["white", TEXT, *COMPLETIONS]
    axes.imshow(
        torch.where(seen, parts[:, None] + 1, 0), cmap=ListedColormap([to_rgb(c) for c in colours]), vmin=0, vmax=5
    )
    axes.set_xlabel("key token", fontsize=9)
    axes.set_ylabel("query token", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("a completion sees the prompt and itself", fontsize=10)


def main():
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6), width_ratios=[2, 1], layout="constrained", dpi=200)
    draw_rows(left)
    draw_mask(right)
    figure.savefig("docs/shared.png")


if __name__ == "__main__":
    main()
