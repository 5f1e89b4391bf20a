"""Findings: the layers that break the limits, the cause, and the cure as code."""

import dataclasses
from collections.abc import Mapping, Sequence

from keras_initx.scaling._rows import Divergence, Growth, Slope
from keras_initx.tables import listed

__all__ = ["KINDS", "MAX_FALL", "MAX_SLOPE", "Finding", "find"]

KINDS = ("diverges", "grows", "unscaled", "vanishes")
MAX_SLOPE = 0.1  # of a value or a change
MAX_FALL = 0.4  # of a change: below the slope -1/2 of the next law
# How far the power of a kernel's norm may be from the law. Mistakes are a half or more. A kernel of few
# inputs or outputs is off by up to 0.2 at widths of a few hundred.
_OFF = 0.3
_FAR = 0.4  # how much larger updates are told, though no layer grows yet


@dataclasses.dataclass(frozen=True)
class Finding:
    """A layer that breaks a limit.

    Attributes:
        path: Path of the layer; empty for the whole model.
        kind: `diverges`, `grows`, `unscaled` or `vanishes`.
        message: The fault and its cause, in a sentence.
        cure: The cure, as code over `initx`, `build`, `model`, `optimizer` and `loss`. A comment if there is
            nothing to change at this layer.
    """

    path: str
    kind: str
    message: str
    cure: str

    def __str__(self) -> str:
        """Formats the finding as one line."""
        return f"`{self.path or 'the model'}`: {self.message}; {self.cure}"


def find(
    slopes: Sequence[Slope],
    growths: Sequence[Growth],
    diverged: Sequence[Divergence],
    widths: Sequence[int],
    optimizer: str,
    seeds: int,
    max_slope: float,
    max_fall: float | None,
) -> tuple[Finding, ...]:
    """Returns the findings: of the whole model, of the layers that are wrong, of those that pass on a fault.

    Args:
        slopes: The slopes of a report.
        growths: Its growths.
        diverged: Its divergences.
        widths: Its widths.
        optimizer: Its optimizer.
        seeds: Its number of seeds.
        max_slope: Largest slope of a value or a change.
        max_fall: Largest fall of a change; None for no limit.
    """
    by_path: dict[str, list[Slope]] = {}
    for slope in slopes:
        by_path.setdefault(slope.path, []).append(slope)
    noise = _noise(seeds)
    broken = {path: _broken(of_path, max_slope, max_fall, noise) for path, of_path in by_path.items()}
    told = {path: fault for path, fault in broken.items() if fault}
    cause = _Causes({growth.path: growth for growth in growths}, list(told), widths[0], optimizer)
    found = [Finding(path, kind, *cause.of(path, kind, text)) for path, (kind, text) in told.items()]
    hidden = [cause.unscaled(growth) for growth in growths if growth.path not in told]
    return (
        *_divergences(diverged),
        *sorted(found, key=lambda one: not cause.is_root(one.path)),
        *filter(None, hidden),
    )


def _noise(seeds: int) -> float:
    """How many standard errors of the mean of so few seeds cover as much as one of many (Student's t)."""
    if seeds < 2:
        return 0.0
    from scipy.stats import norm, t

    return float(t.ppf(norm.cdf(1.0), seeds - 1))


def _broken(
    slopes: Sequence[Slope], max_slope: float, max_fall: float | None, noise: float
) -> tuple[str, str] | None:
    """Returns the kind and the sentence of the fault of a layer."""
    rising = [
        (power, error, name, slope.step)
        for slope in slopes
        for power, error, name in (
            (slope.value, slope.value_error, "its value"),
            (slope.change, slope.change_error, "its change since the start"),
        )
        if power is not None and power - noise * (error or 0.0) > max_slope
    ]
    if rising:
        power, error, name, step = max(rising)
        return "grows", f"{name} grows as width^{_power(power, error)} at step {step}"
    falls = [(s.change, s.change_error) for s in slopes if s.change is not None]
    if max_fall is not None and falls and all(p + noise * (e or 0.0) < -max_fall for p, e in falls):
        text = f"its change since the start falls as width^{_power(*falls[-1])}: in the limit of great width"
        return "vanishes", f"{text} it does not learn"
    return None


def _power(power: float, error: float | None) -> str:
    return f"{power:.2f}" if error is None else f"({power:.2f} ± {error:.2f})"


def _divergences(diverged: Sequence[Divergence]) -> list[Finding]:
    if not diverged:
        return []
    where = listed([f"width={d.width}, seed={d.seed}, step={d.step}" for d in diverged])
    return [
        Finding(
            "",
            "diverges",
            f"a number is not finite at {where}, so the slopes from there on are not known",
            "lower the learning rate of `optimizer`, or look at the slopes of the steps before",
        )
    ]


@dataclasses.dataclass(frozen=True)
class _Causes:
    """Tells a layer that is wrong from a layer that passes on the fault of another.

    Attributes:
        growths: How the kernels grow, by path.
        broken: Paths of the layers that break a limit.
        base: The smallest width.
        optimizer: The optimizer.
    """

    growths: Mapping[str, Growth]
    broken: Sequence[str]
    base: int
    optimizer: str

    def of(self, path: str, kind: str, text: str) -> tuple[str, str]:
        """Returns the message and the cure of a fault."""
        growth = self.growths.get(path)
        if growth and growth.kind == "logits":
            cause = "attention divides its logits by the root of the heads' width, which grows"
            size = growth.head_width
            cure = f"keras.layers.MultiHeadAttention(num_heads=width // {size}, key_dim={size})"
            return f"{text}: {cause}", f"let the number of heads grow, not their width: {cure}"
        if growth and growth.kind == "tied":
            cause = "a tied embedding makes the logits, whose sum over the width grows"
            return f"{text}: {cause}", f"divide them in the model: logits * ({self.base} / width)"
        causes, cures = self._own(growth, 1 if kind == "grows" else -1)
        if causes:
            return f"{text}: {' and '.join(causes)}", "; ".join(cures)
        roots = [other for other in self.broken if other != path and self.is_root(other)]
        if roots:
            return (
                f"{text}: it passes on the fault of another layer",
                f"mend {listed([f'`{root}`' for root in roots])} first",
            )
        if growth and growth.law is not None:
            text = f"{text}, though its weights and its learning rate are as in muP"
            return text, "# more seeds, or larger widths, tell whether it is chance"
        return text, f"{self._draw()}; {_COMPILE}"

    def _own(self, growth: Growth | None, sign: int) -> tuple[list[str], list[str]]:
        """The causes that lie in the kernel itself, with their cures."""
        if growth is None or growth.law is None:
            return [], []
        causes, cures = [], []
        if _is_off(growth.weights, growth.law, sign):
            causes.append(
                f"the norm of its initial weights goes as width^{growth.weights:.2f}, and as "
                f"width^{growth.law:g} in muP"
            )
            cures.append(self._draw())
        if self._has_own_rate(growth, sign):
            causes.append(f"{self._updates(growth)}, so its learning rate is not scaled")
            cures += [] if cures else [self._draw()]
            cures.append(_COMPILE)
        return causes, cures

    def unscaled(self, growth: Growth) -> Finding | None:
        """A kernel that has been left out, though no limit is broken at these widths.

        Its updates grow beyond the law at a learning rate that does not go with the width, as other rates do.
        """
        others = any(abs(other.rate or 0.0) > _OFF for other in self.growths.values())
        left_out = growth.rate is not None and others and growth.kind in ("hidden", "output")
        if not left_out or not self._has_own_rate(growth, 1, _FAR):
            return None
        text = f"{self._updates(growth)}: its learning rate is not scaled, and larger widths break a limit"
        return Finding(growth.path, "unscaled", text, f"{self._draw()}; {_COMPILE}")

    def _updates(self, growth: Growth) -> str:
        return (
            f"the norm of its updates goes as width^{growth.updates:.2f}, and as width^{growth.law:g} in muP"
        )

    def _has_own_rate(self, growth: Growth, sign: int, off: float = _OFF) -> bool:
        """Whether updates are off since the learning rate has no factor that goes with the width."""
        scaled = growth.rate is not None and abs(growth.rate) > _OFF
        wrong = _is_off(growth.updates, growth.law, sign, off)
        return wrong and not scaled and not self._has_larger_gradients(sign)

    def _has_larger_gradients(self, sign: int) -> bool:
        """Whether a head that is not scaled makes all gradients below it larger, at rates that are right.

        Adam divides gradients by their size; SGD does not.
        """
        heads = [g for g in self.growths.values() if g.kind == "output" and g.law is not None]
        large = any(_is_off(head.weights, head.law, 1) for head in heads)
        return sign > 0 and large and self.optimizer.lower().startswith("sgd")

    def is_root(self, path: str) -> bool:
        """Whether the fault of a layer lies in the layer itself."""
        growth = self.growths.get(path)
        if growth is None:
            return False
        return growth.kind in ("logits", "tied") or any(self._own(growth, sign)[0] for sign in (1, -1))

    def _draw(self) -> str:
        return (
            f"report = initx.initialize(model, initx.strategies.MuP(base=build({self.base}), "
            "optimizer=optimizer))"
        )


_COMPILE = "model.compile(report.optimizer(optimizer), loss)"


def _is_off(power: float | None, law: float | None, sign: int, off: float = _OFF) -> bool:
    return power is not None and law is not None and sign * (power - law) > off
