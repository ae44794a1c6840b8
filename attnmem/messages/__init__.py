"""Out-of-memory messages: what they say, and which tensors have the size that they name."""

from attnmem.messages.answer import Explanation, explain
from attnmem.messages.forms import Message, parse

__all__ = ["Explanation", "Message", "explain", "parse"]
