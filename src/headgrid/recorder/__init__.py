"""A running torch model -> captures of its frame attention.

`record` watches the attention functions that a model calls, pools queries and keys by
frame, and leaves the model as it was. Names are imported when they are first used:
the command line lists its commands without loading torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
