"""Floats in Numba kernels: what it takes for loops over them to run in vector registers.

Numba keeps compiled kernels on disk by the date of their own file: after a change here, remove
``__pycache__`` beside them.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba.core import types
from numba.extending import intrinsic


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The same memory as an array: float32 as it is, halves as uint16, which Numba has."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.element_size() == 2 else tensor).numpy()


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile without the interpreter lock, the machine code kept on disk where possible."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # numba found no directory it may write to
            return numba.njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


_instruction: Any = intrinsic


@_instruction
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float32, rounded once, as torch's vectorised kernels compute it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@_instruction
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@_instruction
def larger(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of two finite float32; the flags let a loop of these run in vector registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        larger = builder.fcmp_ordered(">", *arguments, flags=("nnan", "nsz"))
        return builder.select(larger, *arguments, flags=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), generate


@_instruction
def smaller(typing_context: Any, a: Any, b: Any) -> Any:
    """The smaller of two finite float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        smaller = builder.fcmp_ordered("<", *arguments, flags=("nnan", "nsz"))
        return builder.select(smaller, *arguments, flags=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), generate


@compiled()
def exp(x: np.float32) -> np.float32:
    """e**x in float32 for x <= 0, to 2e-7; written out because it vectorises, unlike libm's."""
    x = larger(x, np.float32(-87))
    n = np.floor(fma(x, np.float32(1.4426950408889634), np.float32(0.5)))
    r = fma(n, np.float32(-0.693359375), x)
    r = fma(n, np.float32(2.12194440e-4), r)
    p = np.float32(1.9875691500e-4)
    p = fma(p, r, np.float32(1.3981999507e-3))
    p = fma(p, r, np.float32(8.3334519073e-3))
    p = fma(p, r, np.float32(4.1665795894e-2))
    p = fma(p, r, np.float32(1.6666665459e-1))
    p = fma(p, r, np.float32(5.0000001201e-1))
    p = fma(p, r * r, r + np.float32(1))
    return p * _float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@_instruction
def widen(typing_context: Any, value: Any) -> Any:
    """The float32 of a float32, or of the bits of a bfloat16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if value == types.float32:
            return arguments[0]
        bits = builder.zext(arguments[0], context.get_value_type(types.int32))
        shifted = builder.shl(bits, context.get_constant(types.int32, 16))
        return builder.bitcast(shifted, context.get_value_type(types.float32))

    return types.float32(value), generate


@_instruction
def narrow(typing_context: Any, value: Any, like: Any) -> Any:
    """A finite float32 as float32, or as the bits of the nearest bfloat16, the even one of two."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if like == types.float32:
            return arguments[0]
        bits = builder.bitcast(arguments[0], context.get_value_type(types.int32))
        sixteen = context.get_constant(types.int32, 16)
        odd = builder.and_(builder.lshr(bits, sixteen), context.get_constant(types.int32, 1))
        rounded = builder.add(bits, builder.add(odd, context.get_constant(types.int32, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, sixteen), context.get_value_type(types.uint16))

    return like(types.float32, like), generate
