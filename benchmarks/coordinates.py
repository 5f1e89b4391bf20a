"""The coordinate check of a net and of a decoder over widths from 64 to 1024, under muP and under `by_role`.

`--quick` takes two small widths and writes no table: it shows that the script works, and measures nothing.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import pathlib
import sys
from collections.abc import Iterator

HERE = pathlib.Path(__file__).parent
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
AIM = 1.1  # largest over smallest value of a hidden layer, over the widths


def measure(name: str, start: str, quick: bool) -> Iterator[list[str]]:
    """Yields the rows of one model from one start: the hidden layers together, and the output layer."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import keras_initx as initx
    from support import widths

    build, *data = {
        "net": (widths.net, widths.X, widths.LABELS),
        "decoder": (widths.decoder, widths.TOKENS, widths.NEXT),
    }[name]
    chosen = [32, 64] if quick else [64, 128, 256, 512, 1024]
    initializer = "MuP" if start == "MuP" else initx.strategies.ByRole()
    seeds = 1 if quick else 4
    report = initx.coordinates(build, chosen, initializer, tuple(data), loss=widths.loss(), seeds=seeds)
    failed = ", ".join(dict.fromkeys(found.kind for found in report.findings)) or "passed"
    for label, outputs in (("hidden", False), ("output", True)):
        slopes = [s for s in report.slopes if (s.path in ("head", "out")) == outputs]
        moved = [s.change for s in slopes if s.step]
        ratio = max(s.value_ratio for s in slopes)
        yield [
            *(name, start, label, f"{ratio:.2f}"),
            f"{min(s.value for s in slopes):+.2f} to {max(s.value for s in slopes):+.2f}",
            f"{max(s.change_ratio for s in slopes if s.step):.2f}",
            f"{min(moved):+.2f} to {max(moved):+.2f}",
            failed,
            "" if label == "output" or start != "MuP" else "met" if ratio <= AIM else "missed",
        ]


def main() -> None:
    """Measures both models from both starts, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    sys.path.insert(0, str(HERE))
    from report import write

    rows = [
        row
        for name in ("net", "decoder")
        for start in ("MuP", "by_role")
        for row in measure(name, start, quick)
    ]
    write(
        f"coordinates_{BACKEND}",
        "Not a measurement" if quick else f"Coordinates over widths from 64 to 1024, {BACKEND}",
        f"KERAS_BACKEND={BACKEND} python benchmarks/coordinates.py",
        [
            *("model", "start", "layers", "values, largest over smallest", "slopes of values"),
            *("changes, largest over smallest", "slopes of changes", "check", f"values within {AIM}"),
        ],
        rows,
        "Widths 64, 128, 256, 512 and 1024; steps 0 to 4 of Adam(1e-3) on 16 rows of the net and 8 sequences "
        "of the decoder; 4 seeds. A ratio is that of the worst layer and step, a slope has its range over "
        "layers and steps. Hidden layers are all kernels but the output layer, and the logits of attention. "
        "The output layer of muP falls as 1 / sqrt(width) at the start by design. The models are those of "
        "`tests/support/widths.py`: three Dense layers, and a decoder of one block with heads of width 16.",
        keep=not quick,
    )


if __name__ == "__main__":
    main()
