"""The one gate between stored text or bytes and what they would import, call or make.

What may pass is told by the store's `trusted=`: `gate` decides, by the list in `known`. `names` imports; `guarded`
unpickles, after the opcodes were read by the native scanner; `makers` stand in for constructors that take numbers
which nobody has checked, `array_states` tells what numpy would take on faith; `soundness` looks at what was made before
native code walks it. Nothing else in the package imports, unpickles or evaluates what a file names.
"""

from n4a_fast.artifacts.trust.gate import NONE, WORKSPACE, Trust, trust

__all__ = ["NONE", "WORKSPACE", "Trust", "trust"]
