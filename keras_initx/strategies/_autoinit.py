"""AutoInit: follows mean and variance of the signal through the model, and scales each kernel to match.

One pass over the trace of the model. Each node gets the moments of its output, from the moments of its
inputs, and a kernel on the way gets its draw:

    input (0, 1)  ->  Dense: drawn for (0, 1)  ->  ReLU: map of moments  ->  Dense: drawn for that  -> ...

`_moments` holds the maps as functions of numbers, `_signal_maps` the table from layers to maps. A signal of
unknown moments travels on as `_Unknown` with the reason, which ends up in the note of the kernels it feeds.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import keras

import keras_initx.strategies._moments as maps
from keras_initx._types import Activation, Model
from keras_initx.checks import check_choice, check_finite
from keras_initx.initializers import OrthogonalScaled, RandomScaled
from keras_initx.strategies._by_role import _key
from keras_initx.strategies._moments import Moments
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._signal_maps import constant, map_signal, softmax_size
from keras_initx.walk import EMBEDDINGS, LINEAR, Graph, KernelSite, Node, trace

__all__ = ["AutoInit"]

# Operations of Keras that take a kernel.
_PRODUCTS = ("Conv", "ConvTranspose", "DepthwiseConv", "Dot", "Einsum", "Matmul", "Tensordot")
_LOOKUPS = ("GetItem", "Take")
_DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")


@dataclasses.dataclass(frozen=True)
class AutoInit:
    """Scales each kernel by the predicted mean and variance of the signal that reaches it.

    Law: the strategy follows the mean mu and the variance sigma^2 of the signal from the input through every
    layer and operation. A kernel gets Var W = 1 / (fan_in (sigma^2 + mu^2)), with its true fan, so that its
    output has mean 0 and variance 1 after activations, dropout, pooling, sums, products, concatenations or
    attention. Beyond the paper, the strategy follows a third number, the covariance of two positions:
    attention and average pooling reduce only the part of a signal that positions do not share. No data is
    needed.

    Limits: recurrent layers, frozen or quantized kernels, and layers that Keras does not know make signals of
    unknown moments. A kernel that such a signal feeds is scaled for (0, 1), and its note says so.
    Normalization and dropout count as in training. An axis that the model leaves open counts with the
    length that the trace gives it, 32 if the model runs on that. Masks are not seen.

    Choose it for nets without normalization that mix activations, pooling, dropout and branches, as an
    architecture search makes them. Do not choose it for deep nets with `padding="same"` on small images,
    where the borders lose signal that no map sees. If you have data, `calibrate` measures the moments that
    this strategy predicts. In a plain net of layers and activations it equals `ByRole`.

    >>> import keras
    >>> from keras_initx.walk import iter_kernels
    >>> layers = [keras.layers.Input((9,)), keras.layers.Dropout(0.5), keras.layers.Dense(8, "relu")]
    >>> model = keras.Sequential([*layers, keras.layers.Dense(7)])
    >>> plan = AutoInit().plan(tuple(iter_kernels(model)), model)
    >>> [f"{draw.initializer.gain**2:.3f}" for draw in plan.values()]  # dropout doubles, ReLU halves
    ['0.500', '2.000']

    Args:
        distribution: `"truncated_normal"`, `"normal"` or `"uniform"`.
        input_mean: Mean of the model's inputs.
        input_variance: Variance of the model's inputs.

    Raises:
        ValueError: If the distribution is unknown, a moment is not a finite number, the variance is negative,
            or both moments are 0. When planning, if the model cannot be traced.

    Reference:
        Bingham and Miikkulainen, 2023, "AutoInit: Analytic Signal-Preserving Weight Initialization for Neural
        Networks" (https://arxiv.org/abs/2109.08958): the law above. Departures: true fans, the covariance of
        positions, and a maximum over a rectified signal, which is computed before the activation.
    """

    distribution: str = "truncated_normal"
    input_mean: float = 0.0
    input_variance: float = 1.0

    def __post_init__(self) -> None:
        check_choice("distribution", self.distribution, _DISTRIBUTIONS)
        for name in ("input_mean", "input_variance"):
            check_finite(name, getattr(self, name))
        if self.input_variance < 0 or not (self.input_variance or self.input_mean):
            raise ValueError(
                "`input_variance` must not be negative, and not 0 if `input_mean` is 0. "
                f"Received: input_variance={self.input_variance!r}. Measure both on your data."
            )

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel. Scales are left to their layers' own initializers.

        Args:
            sites: The model's kernels.
            model: The model itself, which is traced.

        Raises:
            ValueError: If no model is given, or it cannot be traced.
        """
        if model is None:
            raise ValueError("`model` must be the model that holds `sites`. Received: model=None.")
        graph = trace(model, [site.kernel for site in sites if site.uses])
        if graph.failure:
            raise ValueError(
                f"`model` must be traceable for AutoInit, but {graph.failure}. Received: "
                f"{type(model).__name__} `{model.name}`. Take 'by_role', or call `calibrate` with data."
            )
        return _Propagation(self, graph, sites).plan()


@dataclasses.dataclass(frozen=True)
class _Unknown:
    """A signal of unknown moments, with the reason."""

    reason: str


class _Propagation:
    """One pass over the graph, which finds the moments of each node and the draw of each kernel."""

    def __init__(self, settings: AutoInit, graph: Graph, sites: Sequence[KernelSite]) -> None:
        self.settings, self.graph = settings, graph
        self.sites = {id(site.kernel): site for site in sites if not site.is_scale}
        self.signals: list[Moments | _Unknown] = []
        self.draws: dict[KernelSite, Draw] = {}
        # Quadrature takes milliseconds, and a deep net has the same activation on the same moments many
        # times.
        self.activations: dict[Hashable, Moments | _Unknown] = {}

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            self.signals.append(self._output(node))
        for site in self.sites.values():
            if site not in self.draws:
                self._draw(site, _Unknown("a step that the trace did not see"))
        return {site: self.draws[site] for site in self.sites.values()}

    def _output(self, node: Node) -> Moments | _Unknown:
        if node.kind == "input":
            return Moments(float(self.settings.input_mean), float(self.settings.input_variance))
        inputs = self._inputs(node)
        sites = [self.sites[id(kernel)] for kernel in node.kernels if id(kernel) in self.sites]
        if sites:
            return self._through_kernels(node, sites, inputs)
        # A normalization's scale starts at 1 and changes nothing; any other kernel that is not drawn here
        # (frozen, quantized, inside an opaque layer) may hold numbers of any size.
        if node.opaque or any(kernel.name not in ("gamma", "scale") for kernel in node.kernels):
            return _Unknown(f"{_label(node)}, which has kernels that are not drawn or not seen")
        unknown = next((x for x in inputs if isinstance(x, _Unknown)), None)
        return unknown or self._without_kernels(node, [x for x in inputs if isinstance(x, Moments)])

    def _inputs(self, node: Node) -> list[Moments | _Unknown]:
        """Moments of the operands that are signals or numbers; others, such as slices, are left out."""
        found: list[Moments | _Unknown] = []
        for operand in node.operands:
            if operand.node is not None:
                found.append(self.signals[operand.node])
            elif (value := constant(operand.value)) is not None:
                found.append(value)
        return found

    def _without_kernels(self, node: Node, inputs: list[Moments]) -> Moments | _Unknown:
        if not inputs:
            return _Unknown(_label(node))
        if node.activation is not None:
            return self._activate(node, node.activation, inputs[0])
        found = map_signal(node, inputs) if len(inputs) == len(node.operands) else None
        if found is None and map_signal(node, inputs[:1]) is inputs[0]:
            found = inputs[0]  # the operation only moves elements; its other operands are slices or shapes
        if found is not None:
            return found
        alone = len(node.operands) == 1 and node.operands[0].shape == node.shape
        return self._activate(node, node.operation, inputs[0]) if alone else _Unknown(_label(node))

    def _activate(self, node: Node, activation: Activation, x: Moments) -> Moments | _Unknown:
        count = softmax_size(activation, node.shape)
        if count:
            return maps.softmax(x, count)
        moments = (round(x.mean, 6), round(x.variance, 6), round(x.shared, 6))  # rounded: to hit the cache
        key = (_key(activation), moments)
        if key not in self.activations:
            try:
                self.activations[key] = maps.activated(activation, Moments(*moments))
            except ValueError:  # the function is not element-wise, or has no moments
                self.activations[key] = _Unknown(_label(node))
        return self.activations[key]

    def _through_kernels(
        self, node: Node, sites: list[KernelSite], inputs: list[Moments | _Unknown]
    ) -> Moments | _Unknown:
        x: Moments | _Unknown = inputs[0] if inputs else _Unknown("no signal")
        if node.kind in EMBEDDINGS:
            return self._embed(node, sites, x)
        if not isinstance(node.operation, keras.layers.Layer):
            return self._through_operation(node, sites)
        if node.kind not in LINEAR:
            return self._through_unknown(node, sites, x)
        for site in sites:
            gain = self._draw(site, x)
            x = maps.weighted(x if isinstance(x, Moments) else Moments(), gain)
            if not site.layer.trainable:  # `initialize` will leave its kernel as it is, of any size
                return _Unknown(f"{site.path}, which is frozen")
        if node.activation is None or isinstance(x, _Unknown):
            return x
        return self._activate(node, node.activation, x)

    def _embed(self, node: Node, sites: list[KernelSite], x: Moments | _Unknown) -> Moments | _Unknown:
        """The moments of embedded rows or of logits; plans the embedding's kernel.

        Rows have variance 1, or 1 / width if the same kernel also makes the logits. A reversible embedding
        runs in both directions: if the output has no more axes than the input, this call makes the logits.
        """
        if len(node.operands[0].shape) < len(node.shape):
            (site,) = [site for site in sites if site.role == "embedding"]
            return self._rows(site)
        untied = [site for site in sites if site.role != "embedding"]
        gain = self._draw(untied[0], x) if untied else 1.0
        return maps.weighted(x, gain) if isinstance(x, Moments) else x

    def _rows(self, site: KernelSite) -> Moments:
        """The moments of the rows of a table; plans the table."""
        mode = "fan_out" if site.tied else "fan_in"
        self.draws.setdefault(site, Draw(RandomScaled(mode=mode, distribution=self.settings.distribution)))
        return Moments(0.0, 1 / site.kernel.shape[-1] if site.tied else 1.0)

    def _through_operation(self, node: Node, sites: list[KernelSite]) -> Moments | _Unknown:
        """The moments after an operation that takes kernels itself, in a layer that a user wrote."""
        signals = [self.signals[operand.node] for operand in node.operands if operand.node is not None]
        x: Moments | _Unknown = signals[0] if signals else _Unknown("no signal")
        (site, *others) = sites
        if others or len(signals) != 1 or not (site.layer.trainable and site.kernel.trainable):
            return self._through_unknown(node, sites, x)
        if site.role == "embedding":
            rows = self._rows(site)
            if node.kind == "Add":  # a table of positions
                return maps.added([x, rows]) if isinstance(x, Moments) else x
            return rows if node.kind in _LOOKUPS else _Unknown(_label(node))
        if node.kind not in _PRODUCTS:
            return self._through_unknown(node, sites, x)
        gain = self._draw(site, x)
        return maps.weighted(x if isinstance(x, Moments) else Moments(), gain)

    def _through_unknown(self, node: Node, sites: list[KernelSite], x: Moments | _Unknown) -> _Unknown:
        """Plans the kernels of a loop, a wrapper or a registered layer, for which no map is known.

        The input of the layer feeds the first kernels only; the signal between the others is unknown.
        """
        reason = _Unknown(_label(node))
        first = min((site.depth or 0) for site in sites)
        for site in sites:
            self._draw(site, x if (site.depth or 0) == first else reason)
        return reason

    def _draw(self, site: KernelSite, x: Moments | _Unknown) -> float:
        """Plans a kernel for the signal that feeds it, if no earlier call did, and returns its gain."""
        if site in self.draws:
            draw = self.draws[site]
            note = "its layer runs more than once, and the first call counts"
            if note not in draw.note:
                joined = "; ".join(filter(None, (draw.note, note)))
                self.draws[site] = dataclasses.replace(draw, note=joined)
            return float(getattr(draw.initializer, "gain", 1.0))
        if site.role == "recurrent":
            self.draws[site] = Draw(OrthogonalScaled())
            return 1.0
        note = ""
        if isinstance(x, _Unknown):
            note = f"fed by {x.reason}: moments unknown, taken as (0, 1)"
        elif not 0 < x.second < math.inf:
            note, x = f"fed by a signal of second moment {x.second:.3g}: taken as (0, 1)", Moments()
        gain = 1.0 if isinstance(x, _Unknown) else 1 / math.sqrt(x.second)
        self.draws[site] = Draw(RandomScaled(gain=gain, distribution=self.settings.distribution), note)
        return gain


def _label(node: Node) -> str:
    """The kind and name of a node, for notes: "LSTM `encoder`"."""
    name = getattr(node.operation, "name", "")
    return f"{node.kind.rsplit('.', 1)[-1]} `{name}`"
