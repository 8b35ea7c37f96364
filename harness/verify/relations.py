"""Check 13: metamorphic relations. Two evaluations of the implementation under test that mathematics says must agree."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.verify import relations_pca
from harness.verify.check import check, n_tensors, n_terms
from harness.verify.context import Context
from impls import Model
from impls.surface import Arrays
from specs import Spec, parameters

Sides = tuple[Arrays, Arrays]  # got, expected


@dataclass(frozen=True)
class Relation:
    name: str
    applies: Callable[[Spec], bool]
    sides: Callable[[Context], Sides]
    count: Callable[[Spec], int]


RELATIONS: list[Relation] = []
TERMS = n_terms
BOTH = lambda spec: n_terms(spec) + n_tensors(spec)


def relation(name: str, applies: Callable[[Spec], bool], count: Callable[[Spec], int]) -> Callable:
    def register(function: Callable[[Context], Sides]) -> Callable[[Context], Sides]:
        RELATIONS.append(Relation(name, applies, function, count))
        return function

    return register


def applicable(spec: Spec) -> list[Relation]:
    return [one for one in RELATIONS if one.applies(spec)]


def _count(c: Context) -> int:
    return sum(1 + one.count(c.spec) for one in applicable(c.spec)) if c.spec.trains else relations_pca.COUNT


@check(
    13,
    "metamorphic relations",
    levels=("ci", "report"),
    count=_count,
    reason=lambda c: None if c.spec.trains else relations_pca.reason(c),
    cause="the function lacks a symmetry that the model has",
)
def check_relations(c: Context) -> None:
    if not c.spec.trains:
        relations_pca.compare(c)
    for one in applicable(c.spec):
        got, expected = one.sides(c)
        c.record.closes(one.name + ":", got, expected, c.gates.relations)


# ---------------------------------------------------------------- helpers


def point(c: Context) -> tuple[Arrays, Arrays]:
    """Generic parameters and a batch."""
    rng = c.draw(20)
    start = parameters.initial(c.spec)
    return {name: value + 0.2 * rng.standard_normal(value.shape) for name, value in start.items()}, c.batch(step=4)


def terms(c: Context, p: Arrays, batch: Arrays, spec: Spec | None = None) -> Arrays:
    model = c.shared(spec)
    model.set_parameters(p)
    return model.terms(batch)


def both(c: Context, p: Arrays, batch: Arrays, spec: Spec | None = None) -> Arrays:
    """Terms, and gradients under "d name"."""
    found = terms(c, p, batch, spec)
    return found | {f"d {name}": value for name, value in c.shared(spec).gradients(batch).items()}


def first(spec: Spec) -> list[str]:
    """Layers that see the data."""
    if spec.hidden:
        return ["encoder.0"]
    return ["mu", "logvar"] if spec.model == "vae" else ["z"]


def last(spec: Spec) -> str:
    return "x_hat" if spec.model == "linear_ae" else "logits"


def from_latent(spec: Spec) -> str:
    """The layer that sees the latent."""
    return "decoder.0" if spec.hidden else last(spec)


def heads(spec: Spec) -> list[str]:
    return ["mu", "logvar"] if spec.model == "vae" else ["z"]


def on(p: Arrays, name: str, f: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return p | {name: f(p[name])}


def squared(spec: Spec) -> bool:
    return spec.model == "linear_ae" or (spec.trains and spec.likelihood == "gaussian")


def halves(batch: Arrays) -> tuple[Arrays, Arrays]:
    n = len(batch["x"]) // 2
    return {k: v[:n] for k, v in batch.items()}, {k: v[n : 2 * n] for k, v in batch.items()}


trains = lambda spec: spec.trains
vae = lambda spec: spec.model == "vae"
deep = lambda spec: spec.trains and bool(spec.hidden)

# ---------------------------------------------------------------- rows, features, units


@relation("permuted rows permute the terms and leave the gradient", trains, BOTH)
def permuted_rows(c: Context) -> Sides:
    p, batch = point(c)
    order = c.draw(21).permutation(c.rows)
    got, plain = both(c, p, {k: v[order] for k, v in batch.items()}), both(c, p, batch)
    return got, {k: v if k.startswith("d ") else v[order] for k, v in plain.items()}


@relation("a batch given twice has the same gradient", lambda s: s.trains and s.training.batch_size > 1, BOTH)
def duplicated_batch(c: Context) -> Sides:
    p, batch = point(c)
    half, _ = halves(batch)
    plain = both(c, p, half)
    return both(c, p, {k: np.concatenate([v, v]) for k, v in half.items()}), {
        k: v if k.startswith("d ") else np.concatenate([v, v]) for k, v in plain.items()
    }


@relation("the gradient is the mean over two halves", lambda s: s.trains and s.training.batch_size > 1, BOTH)
def split_batch(c: Context) -> Sides:
    p, batch = point(c)
    a, b = halves(batch)
    left, right = both(c, p, a), both(c, p, b)
    whole = both(c, p, {k: np.concatenate([a[k], b[k]]) for k in a})
    return whole, {k: (left[k] + right[k]) / 2 if k.startswith("d ") else np.concatenate([left[k], right[k]]) for k in left}


@relation("a row alone has the terms, code and mean that it has in the batch", trains, lambda s: n_terms(s) + len(heads(s)) + 1)
def single_row(c: Context) -> Sides:
    p, batch = point(c)
    model = c.shared()

    def everything(batch: Arrays) -> Arrays:
        code = model.encode(batch)
        return terms(c, p, batch) | code | {"x_hat": model.decode(code[heads(c.spec)[0]])}

    return everything({k: v[:1] for k, v in batch.items()}), {k: v[:1] for k, v in everything(batch).items()}


@relation("a step on more rows than the spec's batch has their gradient", trains, n_tensors)
def larger_batch(c: Context) -> Sides:
    p, batch = point(c)[0], c.batch(3 * c.rows + 1, step=5)
    model, reference = c.fresh(), c.reference()
    for one in (model, reference):
        one.set_parameters(p)
    model.train([batch])
    return model.optimizer_state()["m"], {k: (1 - c.spec.optimizer.beta1) * v for k, v in reference.gradients(batch).items()}


@relation("permuted features", trains, TERMS)
def permuted_features(c: Context) -> Sides:
    p, batch = point(c)
    order, q = c.draw(22).permutation(c.spec.d_x), p
    for name in first(c.spec):
        q = on(q, f"{name}.w", lambda w: w[order])
    q = on(on(q, f"{last(c.spec)}.w", lambda w: w[:, order]), f"{last(c.spec)}.b", lambda b: b[order])
    return terms(c, q, batch | {"x": batch["x"][:, order]}), terms(c, p, batch)


@relation("permuted latents", trains, TERMS)
def permuted_latents(c: Context) -> Sides:
    p, batch = point(c)
    order, q = c.draw(23).permutation(c.spec.d_z), p
    for name in heads(c.spec):
        q = on(on(q, f"{name}.w", lambda w: w[:, order]), f"{name}.b", lambda b: b[order])
    q = on(q, f"{from_latent(c.spec)}.w", lambda w: w[order])
    moved = batch | ({"eps": batch["eps"][:, order]} if c.spec.noisy else {})
    return terms(c, q, moved), terms(c, p, batch)


@relation("mirrored latents", trains, TERMS)
def mirrored_latents(c: Context) -> Sides:
    p, batch = point(c)
    sign = np.where(np.arange(c.spec.d_z) % 2, 1.0, -1.0)
    head = heads(c.spec)[0]
    q = on(on(p, f"{head}.w", lambda w: w * sign), f"{head}.b", lambda b: b * sign)
    q = on(q, f"{from_latent(c.spec)}.w", lambda w: w * sign[:, None])
    moved = batch | ({"eps": batch["eps"] * sign} if c.spec.noisy else {})
    return terms(c, q, moved), terms(c, p, batch)


def permute_hidden(c: Context, p: Arrays) -> Arrays:
    """Permute the units of the encoder's first hidden layer."""
    order = c.draw(24).permutation(c.spec.hidden[0])
    q = on(on(p, "encoder.0.w", lambda w: w[:, order]), "encoder.0.b", lambda b: b[order])
    for name in ["encoder.1"] if len(c.spec.hidden) > 1 else heads(c.spec):
        q = on(q, f"{name}.w", lambda w: w[order])
    return q


@relation("permuted hidden units", deep, BOTH)
def permuted_hidden(c: Context) -> Sides:
    p, batch = point(c)
    plain = both(c, p, batch)
    gradients = permute_hidden(c, {k[2:]: v for k, v in plain.items() if k.startswith("d ")})
    return both(c, permute_hidden(c, p), batch), plain | {f"d {k}": v for k, v in gradients.items()}


@relation("training permuted hidden units gives permuted parameters", deep, n_tensors)
def permuted_training(c: Context) -> Sides:
    p, _ = point(c)
    ends = []
    for start in (permute_hidden(c, p), p):
        model = c.fresh()
        model.set_parameters(start)
        model.train(c.batches(5))
        ends.append(model.parameters())
    return ends[0], permute_hidden(c, ends[1])


@relation("a step is its gradient, applied", trains, n_tensors)
def applied_gradient(c: Context) -> Sides:
    p, batch = point(c)

    def after(advance: Callable[[Model], object]) -> Arrays:
        model = c.fresh()
        model.set_parameters(p)
        advance(model)
        return model.parameters()

    return after(lambda model: model.apply_gradients(model.gradients(batch))), after(lambda model: model.train([batch]))


@relation("scaled hidden units (positive homogeneity)", lambda s: deep(s) and s.activation in ("relu", "identity"), TERMS)
def scaled_hidden(c: Context) -> Sides:
    p, batch = point(c)
    scale = c.draw(25).uniform(0.5, 2, c.spec.hidden[0])
    return terms(c, scale_hidden(c, p, scale), batch), terms(c, p, batch)


@relation("mirrored hidden units (odd activation)", lambda s: deep(s) and s.activation in ("tanh", "identity"), TERMS)
def mirrored_hidden(c: Context) -> Sides:
    p, batch = point(c)
    sign = np.where(np.arange(c.spec.hidden[0]) % 2, 1.0, -1.0)
    return terms(c, scale_hidden(c, p, sign), batch), terms(c, p, batch)


def scale_hidden(c: Context, p: Arrays, scale: np.ndarray) -> Arrays:
    q = on(on(p, "encoder.0.w", lambda w: w * scale), "encoder.0.b", lambda b: b * scale)
    for name in ["encoder.1"] if len(c.spec.hidden) > 1 else heads(c.spec):
        q = on(q, f"{name}.w", lambda w: w / scale[:, None])
    return q


# ---------------------------------------------------------------- data


@relation("shifted data", squared, TERMS)
def shifted_data(c: Context) -> Sides:
    p, batch = point(c)
    shift, q = c.draw(26).standard_normal(c.spec.d_x), p
    for name in first(c.spec):
        q = on(q, f"{name}.b", lambda b, w=p[f"{name}.w"]: b - shift @ w)  # type: ignore[misc]
    q = on(q, f"{last(c.spec)}.b", lambda b: b + shift)
    return terms(c, q, batch | {"x": batch["x"] + shift}), terms(c, p, batch)


@relation("rotated data", squared, TERMS)
def rotated_data(c: Context) -> Sides:
    p, batch = point(c)
    rotation, q = orthogonal(c), p
    for name in first(c.spec):
        q = on(q, f"{name}.w", lambda w: rotation.T @ w)
    q = on(on(q, f"{last(c.spec)}.w", lambda w: w @ rotation), f"{last(c.spec)}.b", lambda b: b @ rotation)
    return terms(c, q, batch | {"x": batch["x"] @ rotation}), terms(c, p, batch)


def orthogonal(c: Context) -> np.ndarray:
    return np.linalg.qr(c.draw(27).standard_normal((c.spec.d_x, c.spec.d_x)))[0]


@relation("scaled data with scaled variance", lambda s: squared(s) and s.model != "linear_ae", TERMS)
def scaled_data(c: Context) -> Sides:
    p, batch = point(c)
    q = p
    for name in first(c.spec):
        q = on(q, f"{name}.w", lambda w: w / 3)
    q = on(on(q, f"{last(c.spec)}.w", lambda w: 3 * w), f"{last(c.spec)}.b", lambda b: 3 * b)
    plain = terms(c, p, batch)
    spec = c.spec.replace(loss={"variance": 9 * c.spec.variance})
    return terms(c, q, batch | {"x": 3 * batch["x"]}, spec), on(plain, "reconstruction", lambda r: r + c.spec.d_x * np.log(3))


@relation("inverted data and logits (Bernoulli)", lambda s: s.trains and s.model != "linear_ae" and s.likelihood == "bernoulli", TERMS)
def inverted_data(c: Context) -> Sides:
    p, batch = point(c)
    q = p
    for name in first(c.spec):
        q = on(q, f"{name}.b", lambda b, w=p[f"{name}.w"]: b + w.sum(0))  # type: ignore[misc]
        q = on(q, f"{name}.w", lambda w: -w)
    q = on(on(q, "logits.w", lambda w: -w), "logits.b", lambda b: -b)
    return terms(c, q, batch | {"x": 1 - batch["x"]}), terms(c, p, batch)


# ---------------------------------------------------------------- models that contain each other


@relation("the gradient is affine in beta", vae, n_tensors)
def affine_in_beta(c: Context) -> Sides:
    p, batch = point(c)
    at = {beta: _only_gradients(both(c, p, batch, c.spec.replace(loss={"beta": beta}))) for beta in (0.0, 1.0, 2.5)}
    return at[2.5], {k: at[0.0][k] + 2.5 * (at[1.0][k] - at[0.0][k]) for k in at[0.0]}


@relation("beta = 1 is the VAE: terms do not depend on beta", vae, TERMS)
def terms_without_beta(c: Context) -> Sides:
    p, batch = point(c)
    return terms(c, p, batch), terms(c, p, batch, c.spec.replace(loss={"beta": 4.0 if c.spec.beta == 1.0 else 1.0}))


def _only_gradients(values: Arrays) -> Arrays:
    return {k[2:]: v for k, v in values.items() if k.startswith("d ")}


@relation("without noise and KL a VAE is an autoencoder", vae, lambda s: 1 + n_tensors(s))
def silent_vae(c: Context) -> Sides:
    p, batch = point(c)
    quiet = batch | {"eps": np.zeros_like(batch["eps"])}
    got = both(c, p, quiet, c.spec.replace(loss={"beta": 0.0}))
    got.pop("kl")
    spec = c.spec.replace(model="ae", loss={"beta": 1.0})
    renamed = {k.replace("mu.", "z."): v for k, v in p.items() if not k.startswith("logvar")}
    expected = {k.replace("d z.", "d mu."): v for k, v in both(c, renamed, {"x": batch["x"]}, spec).items()}
    silent = {f"d logvar.{part}": np.zeros_like(p[f"logvar.{part}"]) for part in ("w", "b")}
    return got, expected | silent


@relation("scaled noise and variance cancel", vae, lambda s: 1)
def scaled_noise(c: Context) -> Sides:
    p, batch = point(c)
    q = on(p, "logvar.b", lambda b: b + 2 * np.log(1.5))
    got = terms(c, q, batch | {"eps": batch["eps"] / 1.5})
    return {"reconstruction": got["reconstruction"]}, {"reconstruction": terms(c, p, batch)["reconstruction"]}


@relation("rotated latents under an isotropic posterior", vae, TERMS)
def rotated_latents(c: Context) -> Sides:
    p, batch = point(c)
    rotation = np.linalg.qr(c.draw(28).standard_normal((c.spec.d_z, c.spec.d_z)))[0]
    p = on(on(p, "logvar.w", np.zeros_like), "logvar.b", lambda b: np.full_like(b, -0.7))
    q = on(on(p, "mu.w", lambda w: w @ rotation), "mu.b", lambda b: b @ rotation)
    q = on(q, f"{from_latent(c.spec)}.w", lambda w: rotation.T @ w)
    return terms(c, q, batch | {"eps": batch["eps"] @ rotation}), terms(c, p, batch)


@relation("mixed latents (any invertible map)", lambda s: s.model in ("ae", "linear_ae"), TERMS)
def mixed_latents(c: Context) -> Sides:
    p, batch = point(c)
    k = c.spec.d_z
    mix = np.eye(k) + 0.3 * c.draw(29).standard_normal((k, k)) / np.sqrt(k)
    q = on(on(p, "z.w", lambda w: w @ mix), "z.b", lambda b: b @ mix)
    q = on(q, f"{from_latent(c.spec)}.w", lambda w: np.linalg.solve(mix, w))
    return terms(c, q, batch), terms(c, p, batch)


@relation("identity activations: an autoencoder is the linear autoencoder", lambda s: s.model == "ae", lambda s: 1 + 4)
def linear_autoencoder(c: Context) -> Sides:
    _, batch = point(c)
    shape = {"hidden": (), "activation": "identity"}
    ae = c.spec.replace(model="ae", architecture=shape, loss={"likelihood": "gaussian", "variance": 0.5})
    linear = c.spec.replace(model="linear_ae", architecture=shape, loss={"likelihood": "gaussian", "variance": 1.0})
    p = parameters.initial(linear)
    got = both(c, {k.replace("x_hat.", "logits."): v for k, v in p.items()}, batch, ae)
    got = {k.replace("logits.", "x_hat."): v for k, v in got.items()}
    return on(got, "reconstruction", lambda r: r - c.spec.d_x / 2 * np.log(np.pi)), both(c, p, batch, linear)


@relation("identity activations: hidden layers collapse into a product", lambda s: s.model in ("ae", "vae"), TERMS)
def collapsed_layers(c: Context) -> Sides:
    batch = c.batch(step=4)
    wide = c.spec.replace(architecture={"hidden": (7,), "activation": "identity"})
    flat = c.spec.replace(architecture={"hidden": (), "activation": "identity"})
    p = parameters.initial(wide)
    q: Arrays = {}
    for name in heads(c.spec):
        q |= {f"{name}.w": p["encoder.0.w"] @ p[f"{name}.w"], f"{name}.b": p["encoder.0.b"] @ p[f"{name}.w"] + p[f"{name}.b"]}
    q |= {"logits.w": p["decoder.0.w"] @ p["logits.w"], "logits.b": p["decoder.0.b"] @ p["logits.w"] + p["logits.b"]}
    return terms(c, p, batch, wide), terms(c, q, batch, flat)


@relation("terms follow from encode and decode", trains, lambda s: 1)
def surface(c: Context) -> Sides:
    p, batch = point(c)
    quiet = batch | ({"eps": np.zeros_like(batch["eps"])} if c.spec.noisy else {})
    got, model = terms(c, p, quiet), c.shared()
    x, x_hat = batch["x"], model.decode(model.encode(batch)[heads(c.spec)[0]])
    if c.spec.model == "linear_ae":
        expected = ((x - x_hat) ** 2).sum(1)
    elif c.spec.likelihood == "bernoulli":
        expected = -(x * np.log(x_hat) + (1 - x) * np.log1p(-x_hat)).sum(1)
    else:
        expected = ((x - x_hat) ** 2 / c.spec.variance + np.log(2 * np.pi * c.spec.variance)).sum(1) / 2
    return {"reconstruction": got["reconstruction"]}, {"reconstruction": expected}
