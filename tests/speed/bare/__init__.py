"""The VAE of ../vae.toml as an expert would write it in each framework, with nothing of ours: what the implementations are held against.

Each module has `Bare(parameters, x, steps, seed, adam)`: parameters by canonical name, one batch x (n, d_x), steps in a round. `run`
makes a round with fresh noise for each step, `block` waits for it, `train(noise)` makes steps with the noise given and returns
their losses, and `parameters()` are those that it has come to: tests hold both against the NumPy reference.
"""
