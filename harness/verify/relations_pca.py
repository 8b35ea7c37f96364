"""The metamorphic relations of PCA."""

import numpy as np

from harness.verify.context import Context
from impls.surface import Arrays

COUNT = 5 * 4 + 9


def reason(c: Context) -> str | None:
    """Eigenvectors of a nearly degenerate spectrum are not determined (Davis & Kahan 1970)."""
    x = c.data.train
    s = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    gap = np.abs(np.diff(s))[: c.spec.d_z].min(initial=s[0]) / s[0]
    return None if gap > 1e-3 else f"two eigenvalues differ by {gap:.1e} of the largest: the axes are not determined"


def fitted(c: Context, x: np.ndarray) -> Arrays:
    model = c.build()
    model.fit(x)
    return model.parameters()


def oriented(rows: np.ndarray) -> np.ndarray:
    return rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])[:, None]


def compare(c: Context) -> None:
    x, gate, rng = c.data.train, c.gates.relations, c.draw(30)
    plain = fitted(c, x)
    mean, components, variance = plain["mean"], plain["components"], plain["explained_variance"]
    rotation = np.linalg.qr(rng.standard_normal((c.spec.d_x, c.spec.d_x)))[0]
    shift, order = rng.standard_normal(c.spec.d_x), rng.permutation(c.spec.d_x)
    n = len(x)
    moved = {
        "rotated data": (x @ rotation, mean @ rotation, oriented(components @ rotation), variance),
        "shifted data": (x + shift, mean + shift, components, variance),
        "scaled data": (3 * x, 3 * mean, components, 9 * variance),
        "permuted rows": (x[rng.permutation(n)], mean, components, variance),
        "rows given twice": (np.concatenate([x, x]), mean, components, variance * 2 * (n - 1) / (2 * n - 1)),
    }
    for name, (data, *expected) in moved.items():
        c.record.closes(f"{name}:", fitted(c, data), dict(zip(("mean", "components", "explained_variance"), expected, strict=True)), gate)
    # far from the origin a covariance in one pass, E x^2 - (E x)^2, has lost its digits; what is left to rounding is 1e4 * 2^-53
    c.record.close("far data: explained variance", fitted(c, x + 1e4)["explained_variance"], variance, c.gates.far_data)
    c.record.close("permuted features", fitted(c, x[:, order])["components"], oriented(components[:, order]), gate)
    c.record.close("mirrored data", fitted(c, -x)["components"], components, gate)
    model = c.build()
    model.fit(x)
    z = model.encode({"x": x})["z"]
    x_hat = model.decode(z)
    c.record.close("encode(decode(z)) = z", model.encode({"x": x_hat})["z"], z, gate)
    again = fitted(c, x_hat)
    c.record.close("fit to its own reconstruction", again["explained_variance"], variance, gate)
    c.record.close("encode(mean) = 0", model.encode({"x": mean[None]})["z"], np.zeros((1, c.spec.d_z)), gate, scale=np.sqrt(variance[0]))
    c.record.close("latents are uncorrelated, with the explained variance", np.cov(z.T).reshape(c.spec.d_z, -1), np.diag(variance), gate)
    total = ((x - x.mean(0)) ** 2).sum() / (n - 1)
    error = ((x - x_hat) ** 2).sum() / (n - 1)
    c.record.close("squared error = total - explained variance", error, total - variance.sum(), gate, scale=total)
    if c.spec.d_z > 1:
        fewer = c.build(c.spec.replace(architecture={"latent": c.spec.d_z - 1}))
        fewer.fit(x)
        c.record.close("one component fewer", fewer.parameters()["components"], components[:-1], gate)
    else:
        c.record.close("one component", z.shape[1], 1, 0.0)
