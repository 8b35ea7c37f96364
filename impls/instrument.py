"""What the machine's card is measured with: the same few operations in each framework, as bare as it gets.

A framework that has an `instrument.py`, with a class `Instrument` made of `(device, dtype)`, is on the card. Its methods make
arrays, or return functions to be timed:

random       shape           -> array on the device, standard normal
matmul       a, b            -> a @ b
lu           a               -> LU decomposition with partial pivoting
triad        a, b            -> a + 3 b, and how many arrays of that size pass through memory (McCalpin 1995)
add_one      x               -> x + 1, of one element: what a call costs
to_device    NumPy array     -> array on the device
to_host      array           -> NumPy array
wait         result          -> None, when the device is done
"""

from typing import Any

DTYPES = ("float64", "float32", "bfloat16")


class Base:
    device = "cpu"
    dtype: str
    triad_arrays = 3  # two are read, one is written

    def __init__(self, device: str, dtype: str):
        self.device, self.dtype = device, dtype

    def reason_against(self, operation: str) -> str | None:
        """Why this dtype cannot do an operation here."""
        if self.dtype == "bfloat16" and operation != "matmul":
            return "bfloat16 is for products"
        if operation in ("to_device", "to_host") and self.device == "cpu":
            return "on a CPU the device is the host"
        return None

    def wait(self, result: Any) -> None:
        pass
