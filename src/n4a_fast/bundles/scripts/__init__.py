"""The text of exported scripts: what follows the mark in each module, with constants in place of those above it.

They are modules here so that they are checked and formatted like everything else. In a script they
stand alone: `table`, and before it `weights` or `pickled`. They run on Python 3.9 and later.
"""

MARK = "# -- in every script from here on --\n"
