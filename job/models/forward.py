"""Forward: a model as a function from normalised pixels to class scores, as fast as it goes."""

import contextlib
import copy
import ctypes
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from job.errors import CannotFoldError
from job.models.families import family_of

# Of glibc's mallopt: see its man page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Forward:
    """How a model is run.

    Attributes:
        scores: (B, 3, height, width) pixels to (B, classes, h, w) logits.
        precision: what matrix products are computed in.
        takes: dtype of the pixels.
        notes: what a person should know of choices that could not be kept.
        uncompiled: the same, for any number of images; None where it is not compiled, which takes
            any number, too.
    """

    scores: Callable[[torch.Tensor], torch.Tensor]
    precision: Precision
    takes: torch.dtype = torch.float32
    notes: tuple[str, ...] = ()
    uncompiled: "Forward | None" = None


def stock(model: Any) -> Forward:
    """The model as transformers runs it, in float32: the reference."""
    scores = family_of(model.config).scores
    return Forward(lambda pixels: scores(model(pixel_values=pixels.contiguous())), "float32")


def fast(
    model: Any,
    precision: Precision = "float32",
    *,
    compiled_for: tuple[int, int, int, int] | None = None,
) -> Forward:
    """The model with its decode head folded, in a precision, and compiled if asked for.

    Each of the three falls back to the plain way, with a note, where it does not work.

    Args:
        model: a Hugging Face semantic-segmentation model in evaluation mode.
        precision: of weights and features; matrix products add up, and normalisations compute, in
            float32 all the same. A model that does not fold runs under autocast instead.
        compiled_for: the one shape (B, 3, height, width) of pixels to compile for, or None.
    """
    notes: list[str] = []
    device = next(model.parameters()).device
    dtype = getattr(torch, precision)
    takes = dtype
    network: Callable[[torch.Tensor], torch.Tensor]
    try:
        network = _folded(model)
    except CannotFoldError as reason:
        notes.append(f"the model runs unfolded: {reason}")
        network, takes = _cast(model, device, dtype), torch.float32
    else:
        if precision != "float32":
            network = copy.deepcopy(network).to(dtype)
    plain = Forward(network, precision, takes, tuple(notes))
    if compiled_for is None:
        return plain
    compiled, note = _compiled(network, compiled_for, device, takes)
    if note:
        return replace(plain, notes=(*notes, note))
    return replace(plain, scores=compiled, uncompiled=plain)


def keep_freed_memory() -> None:
    """Have this process keep what it frees, up to 2 GiB: layers allocate the same sizes again.

    Else the system clears megabytes for every tensor, which can take as long as computing it.
    Only glibc has this setting; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**25)  # the most that it takes
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _folded(model: Any) -> torch.nn.Module:
    """The model by its family's fast path.

    Raises:
        CannotFoldError: it has none, or one that this model does not take.
    """
    fold = family_of(model.config).fold
    if fold is None:
        raise CannotFoldError(f"the family of {type(model).__name__} has no fast path")
    return fold(model)


def _cast(
    model: Any, device: torch.device, dtype: torch.dtype
) -> Callable[[torch.Tensor], torch.Tensor]:
    scores = family_of(model.config).scores

    def cast(pixels: torch.Tensor) -> torch.Tensor:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return scores(model(pixel_values=pixels))

    return cast


def _compiled(
    scores: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, int, int, int],
    device: torch.device,
    takes: torch.dtype,
) -> tuple[Callable[[torch.Tensor], torch.Tensor], str]:
    """Compile and run once; the plain function and the reason where that does not work."""
    if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return scores, "not compiled: there is no C++ compiler on this worker"
    compiled = torch.compile(scores, dynamic=False)
    pixels = torch.zeros(shape, device=device, dtype=takes).contiguous(
        memory_format=torch.channels_last
    )
    try:
        # What depends on the shape alone is made outside the compiled code, by torch's own
        # operations: it has those when there may be something to differentiate.
        with torch.enable_grad():
            scores(pixels[:1])
        with torch.inference_mode():
            compiled(pixels)
    except Exception as error:  # whatever the compiler's back ends raise, the plain way works
        return scores, f"not compiled: {str(error).strip().splitlines()[0][:200]}"
    return compiled, ""
