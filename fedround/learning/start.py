"""A warm start: a federation begins with a checkpoint's numbers, of the whole model or of a part of it.

The coordinator makes one canonical file of it, whose digest stands in the signed federation file. Every run's round 0 holds
these numbers (`fedround verify` proves this), and the recipe's own initial ones for tensors that the checkpoint lacks.

The checkpoint's own training data are assumed to belong to no site: no ledger counts them.
"""

from __future__ import annotations

from pathlib import Path

from fedround import codec
from fedround.codec import Tensors
from fedround.errors import CodecError, ContractError, SetupError
from fedround.files import read_named


def canonical(path: Path) -> bytes:
    """A safetensors file of any floating-point types as the one that its digest names: float32, sorted.

    Tensors of whole numbers (a layer's count of batches) are left out. Raises SetupError if there is no such file,
    ContractError if it is no safetensors file, or holds numbers that float32 does not.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(read_named(path))
    except OSError as error:
        raise SetupError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    except (SafetensorError, KeyError) as error:
        raise ContractError(f"{path}: no safetensors file ({error}): save a state dict with "
                            "safetensors.torch.save_file") from None
    try:
        return codec.encode({name: tensor.float().numpy() for name, tensor in found.items() if tensor.is_floating_point()})
    except CodecError as error:
        raise ContractError(f"{path}: {error}") from None


def read(body: bytes) -> Tensors:
    """The tensors of a canonical file. Raises ContractError if it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found: Tensors = load(body)
        if codec.encode(found) != body:
            raise CodecError("its layout is not the canonical one")
    except (SafetensorError, CodecError, KeyError) as error:
        raise ContractError(f"checkpoint: {error}; make it with 'fedround federation init --start-from'") from None
    return found


def begun_from(whole: Tensors, start: Tensors, name: str) -> Tensors:
    """A recipe's initial numbers, replaced by the checkpoint's where it has any.

    Raises ContractError, naming the recipe and the tensors, if one of them is not in the model, or has another shape there.
    """
    if wrong := sorted(part for part, array in start.items() if part not in whole or whole[part].shape != array.shape):
        raise ContractError(f"recipe '{name}': its model has no tensors of such a name and shape as the checkpoint's "
                            f"{', '.join(wrong[:5])}: take them out of the file, or rename them as the model does")
    return {**whole, **start}
