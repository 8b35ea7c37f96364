"""Faults of NumPy's timed path that a few steps of a fresh one do not show; each takes a backend."""

import numpy as np


def stops(after):
    """Training that goes on to count its steps, and to give losses, but does nothing."""

    def fault(backend):
        honest, losses = backend.timed_train, []

        def timed_train(batch):
            step = honest(batch)

            def run():
                if len(losses) < after:
                    losses.append(step())
                else:
                    backend.optimizer.step += 1
                return losses[-1]

            return run

        backend.timed_train = timed_train

    return fault


def seldom(spared):
    """Trains in one step of four only when `spared(step of the round)`, but counts all and draws their noise."""

    def fault(backend):
        at = [0]
        honest, run = backend.timed_train, backend.run

        def timed_train(batch):
            step, losses = honest(batch), []

            def one():
                at[0] += 1
                if losses and at[0] % 4 and spared(at[0]):
                    backend.drawn(batch)
                    backend.optimizer.step += 1
                else:
                    losses.append(step())
                return losses[-1]

            return one

        backend.timed_train, backend.run = timed_train, lambda: (at.__setitem__(0, 0), run())

    return fault


def seldom_new(backend):
    """Three losses of a round are new, of the others one in four."""
    at = [0]
    honest, run = backend.timed_loss, backend.run

    def timed_loss(batch):
        loss, found = honest(batch), []

        def one():
            at[0] += 1
            if at[0] <= 3 or at[0] % 4 == 0:
                found.append(loss())
            else:
                backend.drawn(batch)
            return found[-1]

        return one

    backend.timed_loss, backend.run = timed_loss, lambda: (at.__setitem__(0, 0), run())


def in_part(backend):
    """In a round of more than three steps decodes a quarter of the rows."""
    honest = backend.timed_generate

    def timed_generate(batch):
        draw, n = honest(batch), len(batch["x"])

        def one():
            if backend.steps <= 3:
                return draw()
            z = backend.noise(n)
            return {"x_hat": np.resize(backend.decode(z[: n // 4]), (n, backend.spec.d_x))}

        return one

    backend.timed_generate = timed_generate


def ahead(backend):
    """The fit is made in `prepare`; a round copies it."""
    honest = backend.timed_fit

    def timed_fit(batch):
        found = {name: value.copy() for name, value in honest(batch)().items()}

        def one():
            backend.set_parameters(found)
            return found

        return one

    backend.timed_fit = timed_fit


def cached(operation):
    def fault(backend):
        honest, found = getattr(backend, f"timed_{operation}"), {}

        def timed(batch):
            run = honest(batch)
            return lambda: found.setdefault("once", run() if "once" not in found else None)

        setattr(backend, f"timed_{operation}", timed)

    return fault
