"""The machine room of PyTorch: parameters in and out, device, dtype, precision, compile variant, the fast loop."""

import importlib

import numpy as np
import torch

from impls.errors import DeviceAbsent
from specs import MODELS, Spec
from specs.parameters import shapes

torch._dynamo.config.recompile_limit = 64  # one process may verify many specs
torch._dynamo.config.fail_on_recompile_limit_hit = True  # never fall back to eager in silence
PRECISION = {"highest": ("highest", False), "high": ("high", True), "default": ("medium", True)}  # of matmul; TF32 in cuDNN


def devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def build(spec: Spec, *, variant: str | None = None, device: str = "cpu", dtype: str = "float32", precision: str = "highest"):
    if device not in devices():
        raise DeviceAbsent("torch", device, devices())
    matmul, torch.backends.cudnn.allow_tf32 = PRECISION[precision]  # on by default: set it, whatever the case
    torch.set_float32_matmul_precision(matmul)
    return (Trainable if spec.trains else PCA)(spec, variant or "eager", device, dtype)


class Base:
    """What PCA and trained models share: arrays in and out, and the timed triple."""

    def __init__(self, spec: Spec, variant: str, device: str, dtype: str):
        self.spec, self.variant = spec, variant
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.model_file = importlib.import_module(f"impls.torch.{spec.model}")
        self.model_class = getattr(self.model_file, MODELS[spec.model])

    def tensor(self, array) -> torch.Tensor:
        return torch.tensor(np.asarray(array), dtype=self.dtype, device=self.device)

    def encode(self, x):
        with torch.no_grad():
            return host(self.compiled(self.model_file.latent)(self.model, self.tensor(x)))

    def decode(self, z, label=None):
        with torch.no_grad():
            return host(self.compiled(self.model_file.x_hat)(self.model, self.tensor(z)))

    def on_device(self, batch):
        return {name: self.tensor(array) for name, array in batch.items()}

    def compiled(self, function):
        return torch.compile(function, fullgraph=True) if self.variant == "compile" else function

    def prepare(self, operation, batch, steps, seed):
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.batch = self.on_device(batch)
        self.timed = getattr(self, f"timed_{operation}")(self.batch)
        self.operation, self.steps = operation, steps

    def refill(self, batch):
        self.batch.update(self.on_device(batch))

    def run(self):
        self.results = [self.timed() for _ in range(self.steps)]

    def block(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def outcome(self):
        if self.operation in {"train", "loss"}:
            return {"loss": torch.stack(self.results).cpu().numpy()}
        return host(self.results[-1])

    def timed_encode(self, batch):
        latent = self.compiled(self.model_file.latent)
        return torch.no_grad()(lambda: latent(self.model, batch["x"]))

    def timed_decode(self, batch):
        x_hat = self.compiled(self.model_file.x_hat)
        return torch.no_grad()(lambda: {"x_hat": x_hat(self.model, batch["z"])})

    def facts(self):
        in_force = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
        return {
            "versions": {"torch": torch.__version__},
            "variant": self.variant,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "precision": next((name for name, flags in PRECISION.items() if flags == in_force), f"matmul, cuDNN's TF32: {in_force}"),
        }

    def memory(self):
        if self.device.type != "cuda":
            return {"alloc_peak": None, "device_reserved_peak": None}
        return {
            "alloc_peak": torch.cuda.max_memory_allocated(self.device),
            "device_reserved_peak": torch.cuda.max_memory_reserved(self.device),
        }


class Trainable(Base):
    def __init__(self, spec, variant, device, dtype):
        super().__init__(spec, variant, device, dtype)
        self.model = self.model_class(spec).to(self.device, self.dtype)
        self.named = {canonical(name): value for name, value in self.model.named_parameters()}
        adam, fused = spec.optimizer, variant != "unfused"
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=adam.learning_rate, betas=(adam.beta1, adam.beta2), eps=adam.epsilon, fused=fused
        )
        self.objective = self.compiled(self.loss_and_terms)

    def loss_and_terms(self, batch):
        terms = self.model_file.terms(self.model, **batch)
        return self.model_file.loss(self.spec, terms), terms

    def parameters(self):
        return {name: outward(name, value.detach()) for name, value in self.named.items()}

    def set_parameters(self, values):
        with torch.no_grad():
            for name, value in self.named.items():
                value.copy_(inward(name, self.tensor(values[name])))

    def terms(self, batch):
        _, terms = self.objective(self.on_device(batch))
        return host({name: value.detach() for name, value in terms.items()})

    def gradients(self, batch):
        self.optimizer.zero_grad()
        value, _ = self.objective(self.on_device(batch))
        value.backward()
        return {name: outward(name, value.grad) for name, value in self.named.items()}

    def train(self, batches):
        losses = [self.step(self.on_device(batch)) for batch in batches]
        return torch.stack(losses).cpu().numpy()

    def step(self, batch):
        self.optimizer.zero_grad()
        value, _ = self.objective(batch)
        value.backward()
        self.optimizer.step()
        return value.detach()

    def apply_gradients(self, gradients):
        for name, value in self.named.items():
            value.grad = inward(name, self.tensor(gradients[name])).contiguous()
        self.optimizer.step()

    def optimizer_state(self):
        states = {name: self.optimizer.state[value] for name, value in self.named.items()}
        if not all(states.values()):  # API: the state appears at the first step
            zeros = {name: np.zeros_like(value) for name, value in self.parameters().items()}
            return {"step": 0, "m": zeros, "v": zeros}
        return {
            "step": int(max(state["step"].item() for state in states.values())),
            "m": {name: outward(name, state["exp_avg"]) for name, state in states.items()},
            "v": {name: outward(name, state["exp_avg_sq"]) for name, state in states.items()},
        }

    def set_optimizer_state(self, state):
        for name, value in self.named.items():
            self.optimizer.state[value] = {
                "step": torch.tensor(float(state["step"]), dtype=torch.float32, device=self.device),
                "exp_avg": inward(name, self.tensor(state["m"][name])).contiguous(),
                "exp_avg_sq": inward(name, self.tensor(state["v"][name])).contiguous(),
            }

    def noise(self, n):
        return torch.randn(n, self.spec.d_z, generator=self.generator, dtype=self.dtype, device=self.device)

    def native_noise(self, n, steps, seed):
        self.generator = torch.Generator(self.device).manual_seed(seed)
        return torch.stack([self.noise(n) for _ in range(steps)]).cpu().numpy()

    def drawn(self, batch):
        return batch | {"eps": self.noise(batch["x"].shape[0])} if self.spec.noisy else batch

    def timed_train(self, batch):
        return lambda: self.step(self.drawn(batch))

    def timed_loss(self, batch):
        return torch.no_grad()(lambda: self.objective(self.drawn(batch))[0])

    def timed_generate(self, batch):
        x_hat, n = self.compiled(self.model_file.x_hat), batch["x"].shape[0]
        return torch.no_grad()(lambda: {"x_hat": x_hat(self.model, self.noise(n))})


class PCA(Base):
    def __init__(self, spec, variant, device, dtype):
        super().__init__(spec, variant, device, dtype)
        self.model = self.model_class(spec)

    def fit(self, x):
        self.model.fit(self.tensor(x))

    def parameters(self):
        return {} if self.model.mean is None else host({name: getattr(self.model, name) for name in shapes(self.spec)})

    def set_parameters(self, values):
        for name in shapes(self.spec):
            setattr(self.model, name, self.tensor(values[name]))

    def timed_fit(self, batch):
        names = tuple(shapes(self.spec))

        def fit():
            self.model.fit(batch["x"])
            return {name: getattr(self.model, name) for name in names}

        return fit


def canonical(name: str) -> str:
    """encoder.layers.0.weight -> encoder.0.w"""
    return name.replace(".layers.", ".").replace(".weight", ".w").replace(".bias", ".b")


def outward(name: str, value: torch.Tensor) -> np.ndarray:
    return (value.T if name.endswith(".w") else value).cpu().numpy()


def inward(name: str, value: torch.Tensor) -> torch.Tensor:
    return value.T if name.endswith(".w") else value


def host(values):
    return {name: value.cpu().numpy() for name, value in values.items()} if isinstance(values, dict) else values.cpu().numpy()


def copied(source: np.ndarray, device: str):
    """In memory of the framework's own."""
    return torch.tensor(source, device=device)
