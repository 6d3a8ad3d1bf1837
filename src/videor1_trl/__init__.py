"""
T-GRPO for video on TRL: reinforcement learning that rewards using the order of the frames.

What a user needs stands here by name (`__init__.pyi` lists it); it is imported once it is asked for, so that
`import videor1_trl` costs nothing and changes nothing in other libraries.
"""

import lazy_loader


__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
