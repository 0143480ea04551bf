"""Read by each Python that has this folder on its path: takes away what another system has not got.

`N4A_STRICT=windows` or `N4A_STRICT=macos`, see the modules beside this one.
"""

import os

if os.environ.get("N4A_STRICT") == "windows":
    import windows_rules

    windows_rules.obey()
elif os.environ.get("N4A_STRICT") == "macos":
    import macos_rules

    macos_rules.obey()
