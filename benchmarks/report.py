"""Writes a table of measurements with the machine, the versions and the date."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

import cpuinfo

RESULTS = pathlib.Path(__file__).parent / "results"


def write(
    name: str,
    title: str,
    command: str,
    columns: list[str],
    rows: list[list[str]],
    note: str = "",
    device: str = "no GPU used",
    *,
    keep: bool = True,
) -> None:
    """Prints the table. With `keep`, it also writes the table to `results/<name>.md`."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("keras", backend, "numpy"))
    brand = cpuinfo.get_cpu_info().get("brand_raw", platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    machine = f"{len(os.sched_getaffinity(0))} cores of {brand}, {memory:.0f} GiB, {device}"
    lines = [
        f"# {title}",
        "",
        f"`{command}` on {machine}; Python {platform.python_version()}, {versions}; "
        f"{datetime.date.today():%d %B %Y}.",
        "",
        *(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows]),
        *(["", note] if note else []),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text)
