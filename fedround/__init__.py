"""The core of fedround: typed values, signatures, aggregation, privacy and learning, without any infrastructure."""

from importlib.metadata import version

__version__ = version("fedround")
