"""More layers as people write them: norms of weights, Fourier features, mixed and generated weights."""

from keras import ops

from support.zoo import MAP, TEXT, Noting


class GEGLU(Noting):
    """Gate and value from one product."""

    def build(self, shape):
        self.both = self.weight("both", shape[-1], 96)
        self.down = self.weight("down", 48, shape[-1])

    def call(self, x):
        gate, up = ops.split(self.note("both", x @ self.both), 2, axis=-1)
        return x + self.note("down", (ops.gelu(gate) * up) @ self.down)


class SpectralDense(Noting):
    """A kernel divided by its largest singular value, from one step of the power method."""

    def build(self, shape):
        self.raw = self.weight("raw", shape[-1], 9)
        self.left = self.weight("left", 1, 9, trainable=False)

    def call(self, x):
        right = ops.normalize(ops.matmul(self.left, ops.transpose(self.raw)))
        left = ops.normalize(ops.matmul(right, self.raw))
        sigma = ops.matmul(ops.matmul(right, self.raw), ops.transpose(left))
        return x @ (self.raw / sigma)


class SpectralConv(Noting):
    """The same of a convolution, whose kernel is a matrix for the norm."""

    def build(self, shape):
        self.raw = self.weight("raw", 3, 3, shape[-1], 8)
        self.left = self.weight("left", 1, 8, trainable=False)

    def call(self, x):
        matrix = ops.reshape(self.raw, (-1, 8))
        right = ops.normalize(ops.matmul(self.left, ops.transpose(matrix)))
        sigma = ops.matmul(ops.matmul(right, matrix), ops.transpose(self.left))
        return ops.conv(x, self.raw / sigma, padding="same")


class FourierFeatures(Noting):
    """A projection that is not trained, then sine and cosine, then a product that is trained."""

    def build(self, shape):
        self.frequencies = self.weight("frequencies", shape[-1], 12, trainable=False)
        self.mix = self.weight("mix", 24, 8)

    def call(self, x):
        angles = x @ self.frequencies
        waves = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
        return self.note("mix", waves @ self.mix)


class FourierMixing(Noting):
    """Mixes positions by a Fourier transform, as FNet does, then channels by a product."""

    def build(self, shape):
        self.mix = self.weight("mix", shape[-1], 16)

    def call(self, x):
        mixed, _ = ops.fft2((x, ops.zeros_like(x)))
        return self.note("mix", mixed @ self.mix)


class Hypernetwork(Noting):
    """A product whose kernel is the output of another: no variable."""

    def build(self, shape):
        self.code = self.weight("code", shape[-1], 5)
        self.maker = self.weight("maker", 5, shape[-1] * 7)

    def call(self, x):
        code = self.note("code", ops.mean(x, axis=1) @ self.code)
        made = self.note("maker", ops.tanh(code) @ self.maker)
        return ops.matmul(x, ops.reshape(made, (-1, x.shape[-1], 7)))


class SplitConvolutions(Noting):
    """A grouped convolution by hand: a convolution for each part of the channels."""

    def build(self, shape):
        half = shape[-1] // 2
        self.one, self.two = self.weight("one", 3, 3, half, 6), self.weight("two", 3, 3, half, 6)

    def call(self, x):
        first, second = ops.split(x, 2, axis=-1)
        first = self.note("one", ops.conv(first, self.one, padding="same"))
        second = self.note("two", ops.conv(second, self.two, padding="same"))
        return ops.concatenate([first, second], axis=-1)


class CutConvolution(Noting):
    """A grouped convolution by hand, with one kernel that is cut."""

    def build(self, shape):
        self.cut = self.weight("cut", 3, 3, shape[-1] // 2, 12)

    def call(self, x):
        parts = zip(ops.split(x, 2, axis=-1), ops.split(self.cut, 2, axis=-1), strict=True)
        return ops.concatenate([ops.conv(part, own, padding="same") for part, own in parts], axis=-1)


class SoftExperts(Noting):
    """Kernels that a router mixes before the product."""

    def build(self, shape):
        self.router = self.weight("router", shape[-1], 4)
        self.experts = self.weight("experts", 4, shape[-1], 8)

    def call(self, x):
        pooled = ops.mean(x, axis=1)
        shares = ops.softmax(self.note("router", pooled @ self.router))
        mixed = ops.einsum("be,edh->bdh", shares, self.experts)
        return self.note("experts", ops.einsum("btd,bdh->bth", x, mixed))


class Moved(Noting):
    """Weights that are negated, padded, repeated or multiplied by a number: still linear."""

    def build(self, shape):
        self.negated = self.weight("negated", shape[-1], 12)
        self.halved = self.weight("halved", 12, 10)
        self.padded = self.weight("padded", 8, 6)
        self.tiled = self.weight("tiled", 6, 4)

    def call(self, x):
        h = self.note("negated", x @ (-self.negated))
        h = self.note("halved", h @ (self.halved * 0.5))
        h = self.note("padded", h @ ops.pad(self.padded, ((1, 1), (0, 0))))
        return self.note("tiled", h @ ops.tile(self.tiled, (1, 3)))


MORE = {
    "geglu": (GEGLU, TEXT, {"both": ("dense", 32, 96, ""), "down": ("dense", 48, 32, "")}),
    "spectral dense": (SpectralDense, TEXT, {"raw": ("dense", 32, 9, "before it is used")}),
    "spectral convolution": (SpectralConv, MAP, {"raw": ("conv", 36, 72, "before it is used")}),
    "fourier features": (FourierFeatures, TEXT, {"mix": ("dense", 24, 8, "")}),
    "fourier mixing": (FourierMixing, TEXT, {"mix": ("dense", 32, 16, "")}),
    # The product with the generated kernel has no site. The weight that makes this kernel says so.
    "hypernetwork": (Hypernetwork, TEXT, {
        "code": ("dense", 32, 5, ""), "maker": ("dense", 5, 224, "the kernel of another product"),
    }),
    "split convolutions": (SplitConvolutions, MAP, {
        "one": ("conv", 18, 54, ""), "two": ("conv", 18, 54, ""),
    }),
    # The outputs of both parts count: whether one signal feeds both is not known.
    "cut convolution": (CutConvolution, MAP, {"cut": ("conv", 18, 108, "")}),
    "soft experts": (SoftExperts, TEXT, {
        "router": ("dense", 32, 4, ""), "experts": ("einsum", 32, 8, "the kernel of another product"),
    }),
    "moved": (Moved, TEXT, {
        "negated": ("dense", 32, 12, ""), "halved": ("dense", 12, 10, ""), "padded": ("dense", 8, 6, ""),
        "tiled": ("dense", 6, 4, ""),
    }),
}  # fmt: skip
