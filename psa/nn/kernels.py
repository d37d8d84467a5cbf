"""Loops compiled by numba: those of psa.nn.relu, and of gathering samples. The only module that imports it.

fastmath stays off and no sum over the batch is taken, so that every result is that of the same operations on
whole tensors. numba widens sums and products of uint32, hence the conversions in the hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.np.arrayobj import make_array

from psa.nn.dropout import _ELEMENT, _LAYER, _MIX_1, _MIX_2

HIDDEN, ENTER, LEAVE = 0, 1, 2  # roles of a layer
_LAYER_TERM: Final = np.uint32(_LAYER)
_ELEMENT_TERM: Final = np.uint32(_ELEMENT % 2**32)
_FACTOR_1: Final = np.uint32(_MIX_1 % 2**32)
_FACTOR_2: Final = np.uint32(_MIX_2 % 2**32)
_AHEAD: Final = 2  # rows: while one is scaled, the one after the next is read
_CACHE_LINE: Final = 64  # bytes
_READ_DATA_SOON: Final = (0, 3, 1)  # LLVM's prefetch: read, into every cache, data
_SIXTEEN, _THIRTEEN, _ZERO = np.uint32(16), np.uint32(13), np.float32(0)

_F = TypeVar("_F", bound=Callable[..., Any])


def _kernel(function: _F) -> _F:
    """Compile a function at its first call; numba keeps the result on disk where its cache can be written."""
    compiled: Any = numba.njit(cache=True, nogil=True, fastmath=False)(function)
    return cast(_F, compiled)


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Return a function for kernels, which is compiled to one operation of LLVM."""
    return extending.intrinsic(function)


@_intrinsic
def _fused(context: Any, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """Return a b + c of three float32, rounded once."""

    def code(_context: Any, builder: Any, _signature: Any, numbers: Any) -> Any:
        kind = ir.FloatType()
        function = builder.module.declare_intrinsic("llvm.fma", [kind], ir.FunctionType(kind, [kind] * 3))
        return builder.call(function, numbers)

    return types.float32(types.float32, types.float32, types.float32), code


@_intrinsic
def _prefetch(context: Any, values: Any, row: Any, column: Any) -> tuple[Any, Any]:
    """Begin to read the memory at a place of a matrix into the cache."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        matrix = make_array(kind)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, kind, matrix, arguments[1:])
        place = builder.bitcast(place, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        called = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], called)
        builder.call(function, [place, *(ir.Constant(number, value) for value in _READ_DATA_SOON)])
        return context.get_dummy_value()

    return types.void(values, types.int64, types.int64), code


@_kernel
def _mixed(bits: Any) -> Any:
    """Apply MurmurHash3's finaliser to a uint32."""
    bits = np.uint32((bits ^ np.uint32(bits >> _SIXTEEN)) * _FACTOR_1)
    bits = np.uint32((bits ^ np.uint32(bits >> _THIRTEEN)) * _FACTOR_2)
    return np.uint32(bits ^ np.uint32(bits >> _SIXTEEN))


@_kernel
def _drop(h: Any, number: Any, place: Any, threshold: Any, scale: Any) -> None:
    """Multiply the outputs of a layer by its dropout mask (see psa.nn.dropout)."""
    term = _mixed(np.uint32(place + np.uint32(np.uint32(number) * _LAYER_TERM)))
    for i in range(len(h)):
        bits = _mixed(np.uint32(np.uint32(np.uint32(i) * _ELEMENT_TERM) + term))
        h[i] *= scale if np.int32(bits) >= threshold else _ZERO


@_kernel
def _relu(h: Any) -> None:
    for i in range(len(h)):
        h[i] = _ZERO if h[i] < _ZERO else h[i]  # noqa: FURB136 - max is not NaN where h is


@_kernel
def _through_relu(delta: Any, y: Any, factor: Any, drops: Any) -> None:
    """Turn the gradient of a layer's output y into that of its product, in place."""
    for i in range(len(delta)):
        d = _ZERO if y[i] <= _ZERO else delta[i]
        delta[i] = d * factor if drops else d


@_kernel
def relu_forward(y: Any, number: Any, which: Any, place: Any, threshold: Any, scale: Any) -> None:
    """Apply ReLU to the products of a layer, [T, N], and dropout to those of the trials that drop."""
    for t in range(len(y)):
        drops = which[t]
        _relu(y[t])
        if drops >= 0:
            _drop(y[t], number, place[drops], threshold[drops], scale[drops])


@_kernel
def relu_backward(delta: Any, y: Any, which: Any, scale: Any) -> None:
    """Turn the gradients of outputs y, [T, N], into those of the products, in place."""
    for t in range(len(y)):
        drops = which[t] >= 0
        _through_relu(delta[t], y[t], scale[which[t]] if drops else np.float32(1), drops)


@_kernel
def _affine_relu(h: Any, w: Any, b: Any, skip: Any, leave: Any, into: Any) -> None:
    """Write relu(w h + b), or relu((w h + b) + skip) of a block's second layer."""
    for i in range(len(into)):
        z = h[i] * w
        z = z + b
        if leave:
            z = z + skip[i]
        into[i] = _ZERO if z < _ZERO else z  # noqa: FURB136 - as above


@_kernel
def chain_forward(
    pairs: Any, kinds: Any, numbers: Any, x: Any, skip: Any, out: Any, which: Any, place: Any, threshold: Any,
    scale: Any,
) -> None:  # fmt: skip
    """Compute the outputs of a chain; see `UnitChain.forward`. skip: [T, B], the input of the block that is
    open at the first layer; on return, of the block last entered.
    """
    trials, layers, batch = pairs.shape[0], pairs.shape[1], skip.shape[1]
    scratch = np.empty((2, batch), np.float32)
    for t in range(trials):
        drops = which[t]
        h = x[t, :batch]
        for k in range(layers):
            if kinds[k] == ENTER:
                skip[t] = h
            last = len(out) == layers or k == layers - 1
            into = out[k if len(out) == layers else 0, t, :batch] if last else scratch[k % 2]
            _affine_relu(h, pairs[t, k, 0], pairs[t, k, 1], skip[t], kinds[k] == LEAVE, into)
            if drops >= 0 and kinds[k] != LEAVE:
                _drop(into, numbers[k], place[drops], threshold[drops], scale[drops])
            h = into


@_kernel
def _below(delta: Any, w: Any, skip: Any, enter: Any, under: Any) -> None:
    """Write the gradient of a layer's input, which a block's input gets from its second layer too."""
    for i in range(len(delta)):
        d = w * delta[i]
        under[i] = d + skip[i] if enter else d


@_kernel
def _quotient(x: Any, divisor: Any, inverse: Any) -> Any:
    """Return x / divisor as a product corrected by its remainder (Markstein 1990), which takes less time."""
    about = x * inverse
    return _fused(_fused(-about, divisor, x), inverse, about)


@_kernel
def _times(delta: Any, x: Any, into: Any) -> None:
    """Write delta x, whose sum over the batch is the gradient of a weight."""
    for i in range(len(into)):
        into[i] = delta[i] * x[i]


@_kernel
def chain_backward(
    pairs: Any, kinds: Any, outputs: Any, deltas: Any, products: Any, below: Any, skip: Any, which: Any,
    scale: Any,
) -> None:  # fmt: skip
    """Compute the gradients of a chain's products; see `TrainedChain.backward`. outputs: the chain's input,
    and its outputs. products: [layers, T, B], written: each gradient times the input of its layer.
    """
    trials, layers, batch = pairs.shape[0], pairs.shape[1], skip.shape[1]
    for t in range(trials):
        drops = which[t] >= 0
        factor = scale[which[t]] if drops else np.float32(1)
        for k in range(layers - 1, -1, -1):
            delta = deltas[k, t, :batch]
            _through_relu(delta, outputs[k + 1, t], factor, drops and kinds[k] != LEAVE)
            if kinds[k] == LEAVE:
                skip[t] = delta
            _times(delta, outputs[k, t], products[k, t])
            under = deltas[k - 1, t, :batch] if k else below[t, :batch]
            _below(delta, pairs[t, k, 0], skip[t], kinds[k] == ENTER, under)


@_kernel
def gather_pixels(pixels: Any, chosen: Any, divisor: Any, offset: Any, spread: Any, into: Any) -> None:
    """Write (x / divisor - offset) / spread of some rows of pixels, uint8 [N, features], into float32
    [len(chosen), features].

    The bits are those of the divisions for every byte and every scaling of psa.data.scaling.pixel_scaling.
    """
    per_divisor, per_spread = np.float32(1) / divisor, np.float32(1) / spread
    for at in range(len(chosen)):
        if at + _AHEAD < len(chosen):
            for i in range(0, pixels.shape[1], _CACHE_LINE):
                _prefetch(pixels, chosen[at + _AHEAD], i)
        x, out = pixels[chosen[at]], into[at]
        for i in range(len(x)):
            shifted = _quotient(np.float32(x[i]), divisor, per_divisor) - offset
            out[i] = _quotient(shifted, spread, per_spread)
