"""The servers of a federation on one machine."""

from infra.stack.local_stack import LocalStack, StackInfo

__all__ = ["LocalStack", "StackInfo"]
