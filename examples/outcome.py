"""The results of all initializations: a table, a picture, and the best one."""

import pathlib

import matplotlib


def show(records: dict[str, dict], chance: float, dataset: str, folder: pathlib.Path) -> str:
    """Prints the table, draws the picture in the folder of the runs, and returns the best initializer.

    `chance` is the accuracy of a model that has learned nothing from the inputs.
    """
    show_table(records)
    picture = folder / "initializations.png"
    draw(records, chance, dataset, picture)
    print(f"\nPicture: {picture}")
    print(f"TensorBoard: tensorboard --logdir {folder}")
    return max(records, key=lambda name: list(records[name]["epochs"].values())[-1]["val_accuracy"])


def draw(records: dict[str, dict], chance: float, dataset: str, path: pathlib.Path) -> None:
    """Draws pre-activation std by depth before training, and held-out accuracy by epoch."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The colours of Okabe and Ito, which colour-blind readers can tell apart.
    colors = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    pyplot.rcParams.update({"font.size": 14})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for number, (name, record) in enumerate(records.items()):
        style = {"color": colors[number % 7], "marker": "osD^vPX"[number % 7], "linewidth": 2, "label": name}
        stds = list(record["signal"].values())
        left.plot(range(1, len(stds) + 1), stds, **style)
        accuracies = [100 * logs["val_accuracy"] for logs in record["epochs"].values()]
        right.plot(range(1, len(accuracies) + 1), accuracies, **style)
    left.set(title="Signal before training", xlabel="layer", ylabel="pre-activation std", yscale="log")
    left.set_xticks(range(1, len(stds) + 1) if len(stds) < 10 else [1, *range(5, len(stds) + 1, 5)])
    right.set(title=f"Training on {dataset}", xlabel="epoch", ylabel="held-out accuracy (%)", ylim=(0, 102))
    right.axhline(100 * chance, color="gray", linestyle="--", label="chance")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(loc="center right")
    figure.savefig(path, dpi=100)


def show_table(records: dict[str, dict]) -> None:
    """Prints a row for each initializer."""
    last = f"std, layer {len(next(iter(records.values()))['signal'])}"
    titles = f"{'std, layer 1':>14}{last:>15}{'loss':>9}{'held-out accuracy':>20}"
    print(f"\n{'initializer':<24}{titles}")
    for name, record in records.items():
        stds, end = list(record["signal"].values()), list(record["epochs"].values())[-1]
        print(
            f"{name:<24}{stds[0]:>14.3g}{stds[-1]:>15.3g}{end['val_loss']:>9.3f}{end['val_accuracy']:>20.3f}"
        )
