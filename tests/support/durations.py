"""A pytest plugin: `--cpu-durations=FILE` writes the CPU seconds of the most expensive tests.

Seconds of a clock depend on everything else that the machine does; CPU seconds do not. They count all threads
of a test, and the processes that the test started and waited for. The seconds of a fixture count for the test
that asks for it first (`setup`) or last (`teardown`).

Tests that cost about `DEAR` or more are listed in `dear.txt` and get the mark `integration`: `make test`
leaves them out. A line is a test, or a file whose tests share a dear fixture. The tests of a report that have
grown dear join the list by `python tests/support/durations.py FILE`.
"""

import collections
import pathlib
import re
import resource
import sys

import pytest

LONGEST = 400
DEAR = 1.2  # CPU seconds
LIST = pathlib.Path(__file__).with_name("dear.txt")


def used():
    """CPU seconds of this process and of the processes that it has waited for."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    from support import forked

    return sum(one.ru_utime + one.ru_stime for one in spent) + forked.spent


def table(spent, longest=LONGEST):
    """The lines of the report. `spent` has the seconds by test and phase."""
    by_test = sorted(spent.items(), key=lambda row: -sum(row[1].values()))
    by_file = collections.Counter()
    for name, phases in by_test:
        by_file[name.partition("::")[0]] += sum(phases.values())
    yield f"{by_file.total():.0f} CPU seconds in {len(by_test)} tests"
    for name, phases in by_test[:longest]:
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases.items() if seconds >= 0.05)
        yield f"{sum(phases.values()):7.1f}  {name}  ({parts})"
    yield "by file"
    for name, seconds in by_file.most_common(longest):
        yield f"{seconds:7.1f}  {name}"


def dear(report):
    """The names of the tests in a report of `--cpu-durations` that cost more than `DEAR`."""
    rows = re.findall(r"^ *([\d.]+)  (.*?::.*)  \(.*\)$", report, re.MULTILINE)
    return sorted(name for seconds, name in rows if float(seconds) > DEAR)


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items):
    """Marks the tests of the list."""
    listed = set(LIST.read_text().splitlines())
    for item in items:
        if not listed.isdisjoint((item.nodeid, item.nodeid.partition("::")[0])):
            item.add_marker("integration")


class Durations:
    """Workers measure, and send the seconds in their reports; the process that prints sums up."""

    def __init__(self, path):
        self.path, self.spent, self.last = path, collections.defaultdict(collections.Counter), used()

    def pytest_runtest_logstart(self):
        self.last = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        now = used()
        report.cpu_seconds, self.last = now - self.last, now
        return report

    def pytest_runtest_logreport(self, report):
        self.spent[report.nodeid][report.when] += report.cpu_seconds

    def pytest_terminal_summary(self, terminalreporter):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = list(table(self.spent))
        self.path.write_text("\n".join(lines) + "\n")
        terminalreporter.write_line(f"{lines[0]}; the most expensive are in {self.path}")


def pytest_addoption(parser):
    parser.addoption(
        "--cpu-durations", metavar="FILE", help="write the CPU seconds of the most expensive tests"
    )


def pytest_configure(config):
    if path := config.getoption("--cpu-durations"):
        config.pluginmanager.register(Durations(pathlib.Path(path)), "cpu-durations")


if __name__ == "__main__":
    found = {*LIST.read_text().splitlines(), *dear(pathlib.Path(sys.argv[1]).read_text())}
    LIST.write_text("".join(f"{name}\n" for name in sorted(found)))
