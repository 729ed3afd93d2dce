"""Where a site's steps are computed: on its processor, or on an accelerator that it has. The site says so; nobody else knows.

Batches and noise are drawn from the site's stream on the processor, whatever the device: the same bytes. Gradients are
clipped, cut to whole cells and summed on the device; noise is added, and the step is taken, on the processor. Two devices
round a row's gradient differently, so results agree to a tolerance: `TOLERANCE`. No row moves a sum by more than the clip
norm, whatever the device: its vector is cut to whole cells after it was computed.

What a device does not promise is that the same work twice gives the same bytes. That a retry repeats bytes is kept by the
outbox: a finished answer is written before it is sent, and sent again as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints

from fedround.codec import Tensors as Arrays
from fedround.errors import SetupError
from fedround.spoken import how_many

if TYPE_CHECKING:
    import torch

DeviceName = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")]
"""auto: an accelerator if there is one."""

TOLERANCE = 1e-4
"""How far one step on two devices may differ, in lengths of the step without noise."""


def chosen(name: DeviceName) -> torch.device:
    """The device of this name. Raises SetupError if this machine does not have it."""
    import torch

    count = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    place = int(name.partition(":")[2] or 0)
    if place >= count:
        has = f"has {count}, counted from 0" if count else "has none that torch can use (a driver, and a torch for it)"
        raise SetupError(f'site.toml says device = "{name}", and this machine {has}: install what is missing, or say '
                         'device = "auto", which takes the processor then')
    return torch.device("cuda", place)


def described(name: DeviceName) -> str:
    """For people. Raises as `chosen`."""
    import torch

    device = chosen(name)
    if device.type == "cpu":
        return f"steps are computed on the processor, in {how_many(torch.get_num_threads(), 'thread')}"
    memory_gib = torch.cuda.get_device_properties(device).total_memory / 2**30
    return (f"steps are computed on {device}: {torch.cuda.get_device_name(device)}, {memory_gib:.0f} GiB; noise is drawn on "
            "the processor")


class OnDevice:
    """Weights on a device, which follow those in the processor's memory; on the processor they are the same memory."""

    def __init__(self, weights: Arrays, device: torch.device):
        import torch

        self._here = {name: torch.from_numpy(array) for name, array in weights.items()}
        self.parameters = {name: part.to(device) for name, part in self._here.items()}

    def follow(self) -> None:
        """After the weights were changed."""
        for name, part in self.parameters.items():
            if part is not self._here[name]:
                part.copy_(self._here[name])


@contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """What a model makes without saying where (places, masks) is made on the device; in full single precision, by the same
    code for the same shapes. What torch's generators were before comes back after.
    """
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cpu":
            yield
            return
        with device, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
