"""The schema of a spec: everything two implementations could disagree on, typed, checked and frozen."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Width = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]  # of a moving average: lt=1 also refuses NaN and infinity

DIGITS_TRAIN, DIGITS_TEST = 1437, 360

# model -> class name in impls/<framework>/<model>.py; a new model starts here
MODELS = {"pca": "PCA", "linear_ae": "LinearAE", "ae": "AE", "vae": "VAE"}


class Section(BaseModel):
    # strict: "0.1" and true are not numbers, and 1.5 is not a width
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Digits(Section):
    """scikit-learn's 1,797 handwritten digits, 8x8, scaled to [0, 1]."""

    name: Literal["digits"] = "digits"

    @property
    def shape(self) -> tuple[int, ...]:
        return (8, 8)

    @property
    def train(self) -> int:
        return DIGITS_TRAIN

    @property
    def test(self) -> int:
        return DIGITS_TEST


class LinearGaussian(Section):
    """x = W z + mean + noise, from a known probabilistic PCA model (Tipping & Bishop 1999, eq. 2)."""

    name: Literal["linear_gaussian"]
    features: Width
    rank: Width
    noise_variance: Positive
    train: Count
    test: Count
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.features,)

    @model_validator(mode="after")
    def _rank_fits(self) -> "LinearGaussian":
        if self.rank >= self.features:
            raise ValueError(f"rank ({self.rank}) must be below features ({self.features}): otherwise no variance is left for the noise")
        return self


class RandomBernoulli(Section):
    """Independent coin flips of any shape: data for benchmarks, with nothing to learn but `probability`."""

    name: Literal["random_bernoulli"]
    shape: Annotated[tuple[Width, ...], Field(min_length=1, strict=False)]
    train: Count
    test: Count
    probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 0


DATA_SETS: dict[str, type[Section]] = {"digits": Digits, "linear_gaussian": LinearGaussian, "random_bernoulli": RandomBernoulli}
Data = Annotated[Digits | LinearGaussian | RandomBernoulli, Field(discriminator="name")]


class Architecture(Section):
    """Widths of the encoder's hidden layers (the decoder mirrors them) and of the latent."""

    latent: Width
    hidden: Annotated[tuple[Width, ...], Field(strict=False)] = ()
    activation: Literal["identity", "relu", "tanh", "softplus", "gelu"] = "identity"


class Loss(Section):
    """Terms are sums over features, in nats, per example; the loss is the mean over the batch of their weighted sum."""

    likelihood: Literal["bernoulli", "gaussian"] = "gaussian"
    variance: Positive = 1.0  # of the Gaussian likelihood; fixed
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class Adam(Section):
    """Kingma & Ba 2015, Algorithm 1: bias-corrected moments, epsilon outside the root."""

    name: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    epsilon: Positive = 1e-8


class Training(Section):
    batch_size: Count = 128
    steps: Count = 1000


def _gate(value: float, why: str) -> float:
    return Field(value, gt=0, le=value, description=why)


class Gates(Section):
    """Largest error allowed, max|a-b| / max|reference| per tensor. A spec may tighten a gate, never loosen it."""

    terms: float = _gate(1e-12, "each loss term per example, float64")
    gradients: float = _gate(1e-12, "each gradient tensor, float64")
    derivative: float = _gate(1e-12, "the reference gradient against an independent derivative")
    optimizer: float = _gate(1e-12, "the optimizer alone on a gradient tape, float64")
    optimizer_float32: float = _gate(3e-5, "the same in float32")
    losses: float = _gate(1e-11, "losses along a float64 trajectory")
    parameters: float = _gate(1e-10, "parameters and moments along a float64 trajectory")
    gradients_float32: float = _gate(1e-5, "step-1 gradients, float32")
    losses_float32: float = _gate(1e-5, "losses along a float32 trajectory")
    parameters_float32: float = _gate(1e-4, "parameters along a float32 trajectory")
    cuda_float32: float = _gate(1e-4, "step-1 gradients and losses, CUDA, IEEE float32")
    low_precision: float = _gate(2e-3, "losses and step-1 gradients with TF32, bf16 or a TPU's default products")
    variants: float = _gate(1e-12, "variants of one framework, float64")
    variants_float32: float = _gate(1e-5, "variants of one framework, float32")
    timed: float = _gate(1e-13, "the timed path against the checked one, which may be another compilation of it, float64")
    timed_float32: float = _gate(1e-5, "the same in float32")
    analytic: float = _gate(1e-12, "against a closed form")
    excess: float = _gate(1e-6, "a trained linear autoencoder above the closed-form optimum, relative")
    nats: float = _gate(1e-3, "a trained linear VAE below the closed-form evidence, nats per example")
    relations: float = _gate(1e-12, "metamorphic relations")
    far_data: float = _gate(1e-10, "PCA's variances of data 1e4 from the origin, where rounding alone is 1e-12 of them")


class Spec(Section):
    """One model, fixed. `name` is the file's stem; `hash` covers everything but name, title and source."""

    name: str
    title: str = ""
    source: str = ""
    model: Literal["pca", "linear_ae", "ae", "vae"]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Digits()
    architecture: Architecture
    loss: Loss = Loss()
    optimizer: Adam = Adam()
    training: Training = Training()
    gates: Gates = Gates()

    @property
    def d_x(self) -> int:
        size = 1
        for length in self.data.shape:
            size *= length
        return size

    @property
    def d_z(self) -> int:
        return self.architecture.latent

    @property
    def hidden(self) -> tuple[int, ...]:
        return self.architecture.hidden

    @property
    def d_h(self) -> int:
        """Width that the encoder's last layer sees."""
        return self.hidden[-1] if self.hidden else self.d_x

    @property
    def d_g(self) -> int:
        """Width that the decoder's last layer sees."""
        return self.hidden[0] if self.hidden else self.d_z

    @property
    def activation(self) -> str:
        return self.architecture.activation

    @property
    def likelihood(self) -> str:
        return self.loss.likelihood

    @property
    def variance(self) -> float:
        return self.loss.variance

    @property
    def beta(self) -> float:
        return self.loss.beta

    @property
    def trains(self) -> bool:
        """False for PCA, which is fitted in closed form."""
        return self.model != "pca"

    @property
    def noisy(self) -> bool:
        """True where a batch carries `eps`."""
        return self.model == "vae"

    @property
    def hash(self) -> str:
        content = self.model_dump(mode="json", exclude={"name", "title", "source"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def replace(self, **sections: Any) -> "Spec":
        """A checked copy with some keys changed: `spec.replace(loss={"beta": 1.0}, model="ae")`."""
        content = self.model_dump()
        for key, value in sections.items():
            same = isinstance(value, dict) and not (key == "data" and value.get("name", self.data.name) != self.data.name)
            content[key] = {**content[key], **value} if same else value
        return Spec.model_validate(content)

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if self.d_z > self.d_x:
            raise ValueError(f"[architecture] latent ({self.d_z}) is larger than the data ({self.d_x} features): nothing is compressed")
        if self.training.batch_size > self.data.train:
            raise ValueError(
                f"[training] batch_size ({self.training.batch_size}) is larger than the data set ({self.data.train} training rows)"
            )
        if self.model == "pca" and self.d_z > self.data.train:
            raise ValueError(f"[architecture] latent ({self.d_z}) is larger than the data set ({self.data.train} training rows)")
        if self.model in ("pca", "linear_ae") and (self.hidden or self.architecture.activation != "identity"):
            raise ValueError(f"[architecture] model '{self.model}' is linear: remove hidden and activation, or use model = \"ae\"")
        if self.model in ("pca", "linear_ae") and self.loss != Loss():
            raise ValueError(f"[loss] model '{self.model}' has the squared error as its loss: remove the section, or use model = \"ae\"")
        if self.model != "vae" and self.loss.beta != 1.0:
            raise ValueError("[loss] beta weighs the KL term of a VAE; this model has none")
        if self.loss.likelihood == "bernoulli" and self.loss.variance != 1.0:
            raise ValueError("[loss] variance belongs to the gaussian likelihood")
        if self.loss.likelihood == "bernoulli" and self.data.name == "linear_gaussian":
            raise ValueError("[loss] the bernoulli likelihood needs data in [0, 1]; linear_gaussian data are not")
        return self
