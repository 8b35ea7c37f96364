"""Check 12: analytic truth. LAPACK and scikit-learn for PCA, Eckart-Young for the linear autoencoder, the pPCA evidence for
the linear VAE, SciPy's densities for every likelihood and KL."""

import numpy as np
from scipy import stats

from harness.verify.check import check, n_tensors
from harness.verify.checks_function import mean_loss
from harness.verify.context import Context
from impls import Model
from impls.surface import Arrays
from specs import Spec, parameters

NEIGHBOURS = 12  # points at which an optimum must not be beaten
STAGES = ((1e-1, 300), (3e-2, 700), (1e-2, 1000), (3e-3, 500), (1e-3, 300), (1e-4, 200))  # learning rate, full-batch steps
CYCLES = 8  # of the stages after the first, at most: a flat landscape needs more than one


def is_linear_vae(spec: Spec) -> bool:
    """True where the ELBO has a closed-form optimum (Lucas et al. 2019)."""
    return spec.model == "vae" and spec.activation == "identity" and not spec.hidden and spec.likelihood == "gaussian" and spec.beta == 1.0


def trains_too(c: Context) -> bool:
    """Whether training to the optimum is part of the check; with a full latent, or hardly any rows, the optimum is a loss of 0."""
    return c.level != "quick" and c.spec.d_z < min(c.spec.d_x, len(c.data.train) - 1)


def _count(c: Context) -> int:
    if c.spec.model == "pca":
        return 2 * 5 + 2
    if c.spec.model == "linear_ae":
        return 2 + n_tensors(c.spec) + NEIGHBOURS + 2 * trains_too(c)
    likelihood = 3 if c.spec.likelihood == "bernoulli" else 2
    linear = (3 + n_tensors(c.spec) - 1 + NEIGHBOURS + 2 * trains_too(c)) if is_linear_vae(c.spec) else 0
    return likelihood + (2 if c.spec.noisy else 0) + linear


@check(
    12,
    "analytic truth",
    count=_count,
    cause="the function is not the one in the literature: a wrong constant, sign, centring or divisor",
)
def check_truth(c: Context) -> None:
    if c.spec.model == "pca":
        _pca(c)
    elif c.spec.model == "linear_ae":
        _linear_ae(c)
    else:
        _likelihood(c)
        if c.spec.noisy:
            _kl(c)
        if is_linear_vae(c.spec):
            _linear_vae(c)


def oriented(rows: np.ndarray) -> np.ndarray:
    return rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])[:, None]


def _pca(c: Context) -> None:
    from sklearn.decomposition import PCA

    x, k, gate = c.data.train, c.spec.d_z, c.gates.analytic
    model = c.build()
    model.fit(x)
    got = model.parameters()
    _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    theirs = PCA(k, svd_solver="full").fit(x)
    truths = {
        "LAPACK SVD": (x.mean(0), oriented(vt[:k]), s[:k] ** 2 / (len(x) - 1)),
        "scikit-learn": (theirs.mean_, oriented(theirs.components_), theirs.explained_variance_),
    }
    # an eigenvector is only as well determined as its gap (Davis & Kahan 1970)
    gaps = np.abs(np.diff(s**2))[:k].min() / s[0] ** 2 if len(s) > k else 1.0
    apart = gaps > 1e-3
    for name, (mean, components, variance) in truths.items():
        c.record.close(f"{name}: mean", got["mean"], mean, gate)
        c.record.close(f"{name}: explained variance", got["explained_variance"], variance, gate)
        vectors = (got["components"], components) if apart else (captured(x, got["components"]), captured(x, components))
        c.record.close(f"{name}: components", *vectors, gate)
        z = (c.data.test - mean) @ components.T
        mine = model.encode({"x": c.data.test})["z"]
        c.record.close(f"{name}: encode", *((mine, z) if apart else (np.square(mine).sum(), np.square(z).sum())), gate)  # type: ignore[call-arg]
        x_hat = z @ components + mean
        c.record.close(f"{name}: decode", model.decode(z), z @ got["components"] + mean if not apart else x_hat, gate)
    covariance = (x - x.mean(0)).T @ (x - x.mean(0)) / (len(x) - 1)
    residual = covariance @ got["components"].T - got["components"].T * got["explained_variance"]
    c.record.close("eigen-equation", residual, np.zeros_like(residual), gate, scale=got["explained_variance"][0])
    c.record.close("orthonormal", got["components"] @ got["components"].T, np.eye(k), gate)


def captured(x: np.ndarray, components: np.ndarray) -> np.ndarray:
    """The variance that lies in the span of the components: what a nearly degenerate spectrum still determines. (1,)"""
    return np.array([np.square((x - x.mean(0)) @ components.T).sum() / (len(x) - 1)])


def full_loss(model: Model, p: Arrays, batch: Arrays) -> float:
    model.set_parameters(p)
    return mean_loss(model.spec, model.terms(batch))


def neighbours(c: Context, p: Arrays) -> list[Arrays]:
    """Points around `p`, near and far."""
    rng = c.draw(7)
    return [
        {name: value + size * rng.standard_normal(value.shape) for name, value in p.items()} for size in np.geomspace(1e-3, 0.3, NEIGHBOURS)
    ]


def train_in_stages(c: Context, batch: Arrays, optimum: float, enough: float) -> Arrays:
    """Full-batch training with a falling learning rate, again and again until the loss is within `enough` of the optimum."""
    p = parameters.initial(c.spec)
    for cycle in range(CYCLES):
        for rate, steps in STAGES[min(cycle, 1) :]:
            model = c.fresh(c.spec.replace(optimizer={"learning_rate": rate}))
            model.set_parameters(p)
            model.train([batch] * steps)
            p = model.parameters()
        if full_loss(model, p, batch) - optimum <= enough:
            break
    return p


def _linear_ae(c: Context) -> None:
    """Eckart & Young 1936; Baldi & Hornik 1989: the optimum is PCA's projection, in any basis of its subspace."""
    batch = c.batch(max(c.rows, c.spec.d_z + 2))  # fewer rows than that do not determine the subspace
    x, k, gate = batch["x"], c.spec.d_z, c.gates.analytic
    mean = x.mean(0)
    _, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    v, total, optimum = vt[:k].T, (s**2).sum() / len(x), (s[k:] ** 2).sum() / len(x)
    at = lambda a, b: {"z.w": v @ a, "z.b": -mean @ v @ a, "x_hat.w": b @ v.T, "x_hat.b": mean}
    model = c.shared()
    scale = {name: float(np.abs(value).max()) for name, value in _gradients(model, parameters.initial(c.spec), batch).items()}
    c.record.close("loss at PCA's solution", full_loss(model, at(np.eye(k), np.eye(k)), batch), optimum, gate, total)
    mixed = np.eye(k) + 0.3 * c.draw(8).standard_normal((k, k)) / np.sqrt(k)
    c.record.close("loss in another basis", full_loss(model, at(mixed, np.linalg.inv(mixed)), batch), optimum, gate, total)
    for name, value in _gradients(model, at(np.eye(k), np.eye(k)), batch).items():
        c.record.close(f"gradient {name} vanishes there", value, np.zeros_like(value), gate, scale[name])
    for i, p in enumerate(neighbours(c, at(np.eye(k), np.eye(k)))):
        c.record.at_most(f"optimum beaten at neighbour {i}, by", (optimum - full_loss(model, p, batch)) / total, gate)
    if trains_too(c):
        p = train_in_stages(c, batch, optimum, c.gates.excess * optimum / 2)
        excess = full_loss(model, p, batch) - optimum
        c.record.at_most("trained: relative excess over the optimum", excess / optimum, c.gates.excess)
        q, _ = np.linalg.qr(p["x_hat.w"].T)
        sine2 = 1 - np.linalg.svd(q.T @ v, compute_uv=False).min() ** 2
        gap = (s[k - 1] ** 2 - s[k] ** 2) / len(x)  # excess >= sin^2 * gap, so this much is allowed, whatever the model says its loss is
        c.record.at_most("trained: sin^2 of the largest angle to PCA's subspace", sine2, c.gates.excess * optimum / gap)


def _gradients(model: Model, p: Arrays, batch: Arrays) -> Arrays:
    model.set_parameters(p)
    return model.gradients(batch)


def _likelihood(c: Context) -> None:
    """-log p(x|z) where the decoder is constant, by SciPy's densities."""
    start, batch, gate = parameters.initial(c.spec), c.batch(step=3), c.gates.terms
    level = c.draw(9).uniform(-2, 2, c.spec.d_x)
    model = c.shared()
    model.set_parameters(start | {"logits.w": np.zeros_like(start["logits.w"]), "logits.b": level})
    if c.spec.likelihood == "gaussian":
        truth = -stats.norm.logpdf(batch["x"], level, np.sqrt(c.spec.variance)).sum(1)
        c.record.close("Gaussian density", model.terms(batch)["reconstruction"], truth, gate)
        mean = level
    else:
        mean = 1 / (1 + np.exp(-level))
        binary = np.round(batch["x"]).clip(0, 1)
        truth = -stats.bernoulli.logpmf(binary, mean).sum(1)
        c.record.close("Bernoulli mass", model.terms(batch | {"x": binary})["reconstruction"], truth, gate)
        grey = -(batch["x"] * np.log(mean) + (1 - batch["x"]) * np.log1p(-mean)).sum(1)
        c.record.close("cross-entropy of grey values", model.terms(batch)["reconstruction"], grey, gate)
    c.record.close("mean in data space", model.decode(np.ones((c.rows, c.spec.d_z))), np.tile(mean, (c.rows, 1)), gate)


def _kl(c: Context) -> None:
    """KL(q || p) = E_q[log q - log p]: Gauss-Hermite quadrature, exact here because the integrand is quadratic."""
    start, batch = parameters.initial(c.spec), c.batch(step=3)
    mu, logvar = c.draw(10).uniform(-2, 2, (2, c.spec.d_z))
    zero = np.zeros_like(start["mu.w"])
    model = c.shared()
    model.set_parameters(start | {"mu.w": zero, "logvar.w": zero, "mu.b": mu, "logvar.b": logvar})
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    sd = np.exp(logvar / 2)
    z = mu + sd * nodes[:, None]
    difference = (stats.norm.logpdf(z, mu, sd) - stats.norm.logpdf(z)).sum(1)
    truth = np.full(c.rows, difference @ weights / weights.sum())
    c.record.close("KL by quadrature", model.terms(batch)["kl"], truth, c.gates.terms)
    flat = start | {"mu.w": zero, "logvar.w": zero, "mu.b": np.zeros_like(mu), "logvar.b": np.zeros_like(mu)}
    model.set_parameters(flat)
    c.record.close("KL of the prior with itself", model.terms(batch)["kl"], np.zeros(c.rows), 0.0)


def sigma_points(d_z: int) -> np.ndarray:
    """(2 d_z, d_z) points with mean 0 and covariance I: the average over them is the expectation of any quadratic in eps."""
    return np.sqrt(d_z) * np.concatenate([np.eye(d_z), -np.eye(d_z)])


def elbo(model: Model, p: Arrays, x: np.ndarray) -> np.ndarray:
    """The linear VAE's ELBO per example (n,), without sampling error."""
    model.set_parameters(p)
    draws = []
    for point in sigma_points(model.spec.d_z):
        found = model.terms({"x": x, "eps": np.tile(point, (len(x), 1))})
        draws.append(-found["reconstruction"] - found["kl"])
    return np.mean(draws, axis=0)


def evidence(p: Arrays, x: np.ndarray, variance: float) -> np.ndarray:
    """log p(x) of the decoder's own pPCA model, per example (n,)."""
    w = p["logits.w"]
    return stats.multivariate_normal(p["logits.b"], w.T @ w + variance * np.eye(w.shape[1])).logpdf(x)


def ppca(spec: Spec, x: np.ndarray) -> Arrays:
    """Parameters of the linear VAE at the global optimum for fixed variance (Tipping & Bishop 1999, eq. 15; Lucas et al. 2019)."""
    mean, variance, k = x.mean(0), spec.variance, spec.d_z
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    top = np.maximum(values[::-1][:k], variance)
    w = vectors[:, ::-1][:, :k] * np.sqrt(top - variance)  # (d_x, d_z); W^T W + variance I = diag(top)
    return {
        "mu.w": w / top,
        "mu.b": -mean @ (w / top),
        "logvar.w": np.zeros_like(w),
        "logvar.b": np.log(variance / top),
        "logits.w": w.T,
        "logits.b": mean,
    }


def _linear_vae(c: Context) -> None:
    x, model, gate = c.batch()["x"], c.shared(), c.gates.analytic
    best = ppca(c.spec, x)
    truth = evidence(best, x, c.spec.variance)
    found = elbo(model, best, x)
    c.record.close("ELBO at the optimum = pPCA evidence, per example", found, truth, gate)
    c.record.close("the same, mean", found.mean(), truth.mean(), gate)
    above = [(elbo(model, p, x) - evidence(p, x, c.spec.variance)).max() for p in neighbours(c, best)]
    c.record.at_most("ELBO above the evidence of its own decoder, anywhere, by", max(above), gate * abs(truth.mean()))
    for i, p in enumerate(neighbours(c, best)):
        c.record.at_most(f"optimum beaten at neighbour {i}, by", elbo(model, p, x).mean() - truth.mean(), gate)
    points = sigma_points(c.spec.d_z)
    size = {name: float(np.abs(value).max()) for name, value in _mean_gradients(model, parameters.initial(c.spec), x, points).items()}
    for name, value in _mean_gradients(model, best, x, points).items():
        if name != "logvar.w":  # its scale at the start is that of the data's mean
            c.record.close(f"gradient {name} vanishes at the optimum", value, np.zeros_like(value), gate, size[name])
    if trains_too(c):
        few = x[: max(2, len(x) // len(points))]
        batch = {"x": np.repeat(few, len(points), axis=0), "eps": np.tile(points, (len(few), 1))}
        best_few = evidence(ppca(c.spec, few), few, c.spec.variance).mean()
        p = train_in_stages(c, batch, -best_few, c.gates.nats / 2)
        reached = -full_loss(model, p, batch)
        c.record.at_most("trained: nats below the evidence", best_few - reached, c.gates.nats)
        c.record.at_most("trained: nats above the evidence", reached - best_few, gate * abs(best_few))


def _mean_gradients(model: Model, p: Arrays, x: np.ndarray, points: np.ndarray) -> Arrays:
    model.set_parameters(p)
    each = [model.gradients({"x": x, "eps": np.tile(point, (len(x), 1))}) for point in points]
    return {name: np.mean([g[name] for g in each], axis=0) for name in each[0]}
