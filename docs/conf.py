"""How the documentation site is built: `make docs`, without network, warnings as errors.

The pages are the Markdown files of this folder. Pages of the reference are written by `reference_pages` from the
package itself before each build, so no method, command, table or error can be missing. The tutorials are the scripts
of `examples/`, run by sphinx-gallery; the sample report is that of a demo run during the build.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference_pages import write_pages  # noqa: E402

from n4a_fast import __version__  # noqa: E402
from n4a_fast.cli.demo import run_demo  # noqa: E402

project, author, copyright = "n4a_fast", "n4a_fast contributors", "n4a_fast contributors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # links to sources of the repository, which the site does not hold

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "tutorials",
    "filename_pattern": ".py",  # all are run,
    "ignore_pattern": r"^job_array\.py",  # but for what one of them imports
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,
    "show_signature": False,
    "abort_on_example_error": True,
}

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

html_theme = "pydata_sphinx_theme"
html_title = "n4a_fast"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False


def _write_sample_report(app: Sphinx) -> None:
    """`sample_report.html` beside the pages, made by the demo."""
    place = Path(app.outdir) / "sample_report.html"
    if not place.exists():
        with tempfile.TemporaryDirectory() as folder:
            run_demo(Path(folder) / "n4a_demo", Console(file=io.StringIO()))
            shutil.copy(Path(folder) / "n4a_demo" / "report.html", place)


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", _write_sample_report)
    app.connect("builder-inited", lambda _: write_pages(HERE / "reference"))
