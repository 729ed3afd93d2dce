"""Local algorithms: how a site uses its gradients, and what the server does with the result. Each algorithm is one value in
one file.

A new one is a subclass of `LocalAlgorithm` in a file of its own, and a name in the union below. Live rounds, the simulator,
`verify --recompute` and the settings files know it then.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedround.learning.algorithms.base import LocalAlgorithm, Steps, Vectors
from fedround.learning.algorithms.ditto import Ditto
from fedround.learning.algorithms.fedprox import FedProx
from fedround.learning.algorithms.plain import Plain
from fedround.learning.algorithms.scaffold import Scaffold

__all__ = ["Algorithm", "Ditto", "FedProx", "LocalAlgorithm", "Plain", "Scaffold", "Steps", "Vectors"]

Algorithm = Annotated[Plain | FedProx | Scaffold, Field(discriminator="name")]
